<?php

namespace App\Database;

use PDO;

/** PDO's own transactions begin as readers, which cannot wait to become writers. */
class ImmediatePdo extends PDO
{
    private bool $begun = false;

    public function beginTransaction(): bool
    {
        $this->exec('BEGIN IMMEDIATE');
        return $this->begun = true;
    }

    public function commit(): bool
    {
        return $this->end('COMMIT');
    }

    public function rollBack(): bool
    {
        return $this->end('ROLLBACK');
    }

    public function inTransaction(): bool
    {
        return $this->begun;
    }

    private function end(string $statement): bool
    {
        $this->begun = false;
        return $this->exec($statement) !== false;
    }
}
