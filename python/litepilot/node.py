"""Who is primary, as the files beside the database say: no connection, no request.

LiteFS and Litepilot's embedded engine keep a file `.primary` in the directory of the database: it
holds the primary's name, and is missing where this node is the primary or knows of none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .refusal import PRIMARY_HEADER, ROLE_HEADER

# Longer than any node's name.
_LONGEST_NAME = 256


class Node:
    """This node, by the directory of its database."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._primary = os.path.join(os.fspath(directory), ".primary")

    @classmethod
    def of(cls, database: str | os.PathLike[str]) -> Node:
        """The node whose directory that database is in."""
        return cls(Path(os.path.abspath(database)).parent)

    def is_replica(self) -> bool:
        """Whether another node is known to be the primary. One look into the file system."""
        return os.path.exists(self._primary)

    def primary(self) -> str | None:
        """The name of the node that this one follows; `None` on the primary, and while none is known."""
        try:
            with open(self._primary, encoding="utf-8", errors="replace") as file:
                return file.read(_LONGEST_NAME).strip() or None
        except OSError:
            return None


class Headers(Protocol):
    """A request's headers, with names in any case, as each framework has them."""

    def get(self, key: str, /) -> str | None: ...


@dataclass(frozen=True)
class Place:
    """Where a request is served, as Litepilot told the application with it."""

    role: str | None
    """`primary` or `replica`; `None` for a request that did not come through Litepilot."""
    primary: str | None
    """The name of the primary; `None` while there is none."""
    node: str | None
    """This node's name; `None` if Litepilot has not started the application."""

    @classmethod
    def of(cls, headers: Headers) -> Place:
        """From what Litepilot has set."""
        return cls(
            role=headers.get(ROLE_HEADER) or None,
            primary=headers.get(PRIMARY_HEADER) or None,
            node=os.environ.get("LITEPILOT_NODE") or None,
        )
