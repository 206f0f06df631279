<?php

declare(strict_types=1);

// Litepilot runs it where a node becomes the primary: app.on_promote.

require __DIR__ . '/database.php';

$database = database();
$database->exec('PRAGMA journal_mode = WAL');
$database->exec(
    'CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL, views INTEGER NOT NULL DEFAULT 0)'
);
