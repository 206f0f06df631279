<?php

return [
    'default' => 'sqlite',
    'connections' => [
        'sqlite' => [
            'driver' => 'sqlite',
            // A file in litefs.mount.
            'database' => env('DATABASE'),
            'prefix' => '',
            'foreign_key_constraints' => true,
            'options' => [PDO::ATTR_TIMEOUT => 10], // seconds: the busy timeout
        ],
    ],
    'migrations' => 'migrations',
];
