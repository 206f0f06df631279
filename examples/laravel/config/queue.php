<?php

return [
    'default' => 'database',
    'connections' => [
        'database' => [
            'driver' => 'database',
            'table' => 'jobs',
            'queue' => 'default',
            // After so many seconds a job is begun anew whose worker died with its primary: longer than any job takes.
            'retry_after' => 10,
        ],
    ],
    'failed' => ['driver' => 'null'],
];
