<?php

declare(strict_types=1);

/** One connection for each request: PHP closes it at the end. No PDO::ATTR_PERSISTENT. */
function database(): PDO
{
    return new PDO('sqlite:' . getenv('DATABASE'), null, null, [
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
        PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
        PDO::ATTR_TIMEOUT => 10, // seconds: the busy timeout
    ]);
}
