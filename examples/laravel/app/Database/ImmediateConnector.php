<?php

namespace App\Database;

use Illuminate\Database\Connectors\SQLiteConnector;
use PDO;

/** What Laravel 12 does by itself: a busy timeout, a WAL, and transactions that begin IMMEDIATE. */
class ImmediateConnector extends SQLiteConnector
{
    public function connect(array $config): PDO
    {
        // Laravel opens only what is there.
        if (!file_exists($config['database'])) {
            touch($config['database']);
        }
        return parent::connect($config);
    }

    protected function createPdoConnection($dsn, $username, $password, $options): PDO
    {
        return new ImmediatePdo($dsn, $username, $password, $options);
    }
}
