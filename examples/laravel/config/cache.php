<?php

// `queue:restart` speaks to the workers of a node by it.
return [
    'default' => 'file',
    'stores' => ['file' => ['driver' => 'file', 'path' => storage_path('framework/cache')]],
    'prefix' => 'notes',
];
