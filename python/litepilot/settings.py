"""What a `litepilot.yml` says that was made from `LITEFS = {…}`, and back.

What a key means, which values it takes and what it is by default, Litepilot knows, and `litepilot
check` says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import document
from .admin import DEFAULT_URL

# Where each field of `Settings` stands in litepilot.yml, in the order in which it is written.
PLACES = {
    "node": ("node",),
    "listen": ("proxy", "listen"),
    "target": ("proxy", "target"),
    "db": ("proxy", "db"),
    "write_hold": ("proxy", "write_hold"),
    "election": ("cluster", "election"),
    "primary": ("cluster", "primary"),
    "peer_listen": ("cluster", "listen"),
    "peers": ("cluster", "peers"),
    "mount": ("litefs", "mount"),
    "data": ("litefs", "data"),
    "retention": ("litefs", "retention"),
}
_HEAD = "# Written by `manage.py litepilot config` from LITEFS in the project's settings.\n"


@dataclass(frozen=True)
class Settings:
    """What `LITEFS` says, in Litepilot's own words. `None`: not said, so Litepilot's default holds."""

    mount: str = "/litefs"
    db: str = "db.sqlite3"
    target: str = "127.0.0.1:8000"
    listen: str | None = None
    write_hold: str | None = None
    node: str | None = None
    election: str | None = None
    primary: str | None = None
    peer_listen: str | None = None
    peers: dict[str, str] | None = None
    data: str | None = None
    retention: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    """The other keys of litepilot.yml."""
    enabled: bool = True
    """The only one that litepilot.yml does not have: where it is false, there is no Litepilot."""

    @property
    def database(self) -> str:
        """The path of the database."""
        return os.path.join(self.mount, self.db)

    @property
    def admin_url(self) -> str:
        """Where the node's admin port is, seen from the node itself."""
        listen = self.config.get("admin", {}).get("listen")
        if not isinstance(listen, str):
            return DEFAULT_URL
        host, _, port = listen.rpartition(":")
        return f"http://{'127.0.0.1' if host in ('', '0.0.0.0', '[::]') else host}:{port}"

    def to_yaml(self) -> str:
        """The litepilot.yml that says the same."""
        tree: dict[str, Any] = {}
        for name, place in PLACES.items():
            if (value := getattr(self, name)) is not None:
                _put(tree, place, value)
        for key, value in self.config.items():
            if isinstance(value, Mapping):
                tree.setdefault(key, {}).update(value)
            else:
                tree[key] = value
        return _HEAD + document.write(tree)


def parse(text: str) -> Settings:
    """The settings that `Settings.to_yaml` has written. Raises DocumentError."""
    tree = document.read(text)
    found = {name: take(tree, place) for name, place in PLACES.items()}
    given = {name: value for name, value in found.items() if value is not None}
    return Settings(**given, config={key: value for key, value in tree.items() if value != {}})


def _put(tree: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for key in place[:-1]:
        tree = tree.setdefault(key, {})
    tree[place[-1]] = value


def take(tree: Any, place: tuple[str, ...]) -> Any:
    """Removes what stands there, and returns it."""
    for key in place:
        if not isinstance(tree, dict):
            return None
        tree, section = tree.get(key), tree
    return section.pop(place[-1], None)
