<?php

namespace App\Models;

use Illuminate\Database\Eloquent\Model;

class Note extends Model
{
    public $timestamps = false;

    protected $fillable = ['text'];

    protected $attributes = ['views' => 0];

    protected $casts = ['views' => 'integer'];
}
