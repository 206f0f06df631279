<?php

namespace App\Providers;

use App\Database\ImmediateConnector;
use Illuminate\Foundation\Support\Providers\RouteServiceProvider;
use Illuminate\Support\Facades\Route;

class AppServiceProvider extends RouteServiceProvider
{
    public function register(): void
    {
        parent::register();
        $this->app->bind('db.connector.sqlite', ImmediateConnector::class);
    }

    public function map(): void
    {
        Route::group([], base_path('routes/api.php'));
    }
}
