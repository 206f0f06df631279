"""A directory as LiteFS keeps it on a node: the database, its position, and `.primary` on a replica."""

from __future__ import annotations

import pathlib

from tests import databases


class Directory:
    """The mount of a node whose role changes."""

    def __init__(self, path: pathlib.Path, *, replica: bool) -> None:
        self.path = path
        self.database = databases.make(path / "db.sqlite3")
        pathlib.Path(f"{self.database}-pos").write_text("0000000000000001/8000000000000000\n")
        if replica:
            self.demote()

    def demote(self) -> None:
        """It follows node-1 now."""
        databases.refuse_writes(self.database)
        (self.path / ".primary").write_text("node-1\n")

    def promote(self) -> None:
        """It is the primary now."""
        databases.take_writes(self.database)
        (self.path / ".primary").unlink(missing_ok=True)
