"""Real databases that refuse writes in the way a replica's does."""

import pathlib
import sqlite3
from contextlib import closing

# https://sqlite.org/fileformat2.html, "File format version numbers": at offset 18 the version
# needed to write. Above 2, SQLite reads the file and refuses to write it, even for root.
WRITE_VERSION_OFFSET = 18
READ_ONLY = b"\x03"


def make_replica(path):
    """Makes a database with a table `t` that refuses writes; returns its path."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    refuse_writes(path)
    return path


def refuse_writes(path):
    """Makes an existing database, which nobody has open, refuse writes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with pathlib.Path(path).open("r+b") as file:
        file.seek(WRITE_VERSION_OFFSET)
        file.write(READ_ONLY)


def write(path):
    """Tries to write."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO t VALUES (1)")
