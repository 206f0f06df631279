"""Real databases that refuse writes in the way a replica's does."""

import pathlib
import resource
import sqlite3
from contextlib import closing, contextmanager

# https://sqlite.org/fileformat2.html, "File format version numbers": at offset 18 the version
# needed to write. Above 2, SQLite reads the file and refuses to write it, even for root.
WRITE_VERSION_OFFSET = 18
READ_ONLY, ROLLBACK = b"\x03", b"\x01"


def make(path):
    """Makes a database with a table `t`; returns its path."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    return path


def make_replica(path):
    """The same, and it refuses writes."""
    refuse_writes(make(path))
    return path


def refuse_writes(path):
    """Makes an existing database, which nobody has open, refuse writes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with pathlib.Path(path).open("r+b") as file:
        file.seek(WRITE_VERSION_OFFSET)
        file.write(READ_ONLY)


def take_writes(path):
    """Undoes that."""
    with pathlib.Path(path).open("r+b") as file:
        file.seek(WRITE_VERSION_OFFSET)
        file.write(ROLLBACK)
        file.write(ROLLBACK)


def write(path, timeout=5):
    """Tries to write."""
    with closing(sqlite3.connect(path, timeout=timeout)) as connection, connection:
        connection.execute("INSERT INTO t VALUES (1)")


@contextmanager
def locked(path):
    """Somebody else is in a transaction that writes, as one is that was refused on a replica."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def failing_wal(path):
    """Makes the database's WAL refuse to grow: SQLite then fails at COMMIT, as on LiteFS' replicas."""
    with closing(sqlite3.connect(path)) as connection:
        # What is beside the WAL is there as long as somebody has it open.
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("SELECT * FROM sqlite_master").fetchall()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
