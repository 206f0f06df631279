<?php

declare(strict_types=1);

// A list of notes in plain PHP, PDO and SQLite. It knows nothing of Litepilot.

require __DIR__ . '/../database.php';

// With display_errors PHP answers 200 to what failed, and nobody would send it to the primary.
ini_set('display_errors', '0');

function answer(int $status, mixed $body): void
{
    http_response_code($status);
    header('Content-Type: application/json');
    echo json_encode($body, JSON_THROW_ON_ERROR), "\n";
}

/** PDO's own beginTransaction() begins as a reader, which cannot wait to become a writer. */
function transaction(PDO $database, callable $work): mixed
{
    $database->exec('BEGIN IMMEDIATE');
    $result = $work($database);
    // What fails before is rolled back with the connection, at the end of the request.
    $database->exec('COMMIT');
    return $result;
}

function add(string $text): void
{
    $id = transaction(database(), function (PDO $database) use ($text): int {
        $database->prepare('INSERT INTO notes (text) VALUES (?)')->execute([$text]);
        return (int) $database->lastInsertId();
    });
    answer(201, ['id' => $id]);
}

/**
 * A GET that writes: it counts views. In a transaction: by itself a statement with RETURNING commits when it has been
 * fetched, and if that fails PDO does not tell.
 */
function view(int $id): void
{
    $note = transaction(database(), function (PDO $database) use ($id): array|false {
        $found = $database->prepare('UPDATE notes SET views = views + 1 WHERE id = ? RETURNING *');
        $found->execute([$id]);
        $note = $found->fetch();
        $found->closeCursor();
        return $note;
    });
    answer($note ? 200 : 404, $note ?: ['error' => 'no such note']);
}

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
match (true) {
    $path === '/healthz' => answer(200, database()->query('SELECT count(*) AS tables FROM sqlite_master')->fetch()),
    $path === '/notes' && $_SERVER['REQUEST_METHOD'] === 'POST'
        => add(json_decode(file_get_contents('php://input'), true, flags: JSON_THROW_ON_ERROR)['text']),
    $path === '/notes' => answer(200, database()->query('SELECT * FROM notes ORDER BY id')->fetchAll()),
    preg_match('#^/notes/(\d+)$#', $path, $found) === 1 => view((int) $found[1]),
    default => answer(404, ['error' => 'no such page']),
};
