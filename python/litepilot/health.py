"""What a health route answers. For Litepilot (`app.health`) its status counts, the rest is for people."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from urllib.parse import quote

from .node import Node

Said = dict[str, "str | None"]

# A health check is asked again soon.
_TIMEOUT = 1.0


def describe(database: str | os.PathLike[str]) -> Said:
    """This node, by what lies beside its database."""
    node = Node.of(database)
    return {
        "node": os.environ.get("LITEPILOT_NODE") or None,
        "role": "replica" if node.is_replica() else "primary, or none is known",
        "primary": node.primary(),
    }


def ask(database: str | os.PathLike[str]) -> tuple[int, Said]:
    """200 if the database can be read, on whichever node; else 503."""
    said = describe(database)
    uri = f"file:{quote(os.path.abspath(database))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=_TIMEOUT)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return 503, {**said, "database": str(error)}
    return 200, {**said, "database": "ok"}
