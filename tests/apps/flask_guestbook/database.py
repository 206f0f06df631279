"""The guestbook's database: one connection per request, one transaction per write."""

import os
import pathlib
import sqlite3
from contextlib import closing, contextmanager

BUSY_TIMEOUT_S = 5
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, author TEXT NOT NULL, text TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, seen INTEGER NOT NULL);
"""


def path():
    """Where the database is. Read at each use, so that a missing setting is reported by a page."""
    return pathlib.Path(os.environ["GUESTBOOK_DB"]).absolute()


def _connect(mode):
    uri = f"{path().as_uri()}?mode={mode}"
    # No implicit transactions: they begin as readers, and a reader cannot wait to become a writer.
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def rows(query, *parameters):
    """What a query finds; nothing while there is no database yet.

    A read never creates the file: on a replica it comes from the primary.
    """
    if not path().exists():
        return []
    with closing(_connect("rw")) as connection:
        try:
            return [dict(row) for row in connection.execute(query, parameters)]
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


@contextmanager
def write():
    """A transaction that has the write lock from its beginning. The first one makes the tables."""
    with closing(_connect("rwc")) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            yield connection
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
