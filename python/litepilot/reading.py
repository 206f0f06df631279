"""`LITEFS = {…}`, as Django's settings have it: its keys are those of former designs.

Here they get the names that Litepilot has for them, and a list of addresses gets the names of nodes.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

from .peers import Peers, PeersError
from .settings import PLACES, Settings, take

KEYS = (
    "ENABLED",
    "MOUNT_PATH",
    "DATA_PATH",
    "DATABASE_NAME",
    "RETENTION",
    "LEADER_ELECTION",
    "PRIMARY_HOSTNAME",
    "NODE_ID",
    "RAFT_SELF_ADDR",
    "RAFT_PEERS",
    "PROXY",
    "PROXY_ADDR",
    "CONFIG",
)
PROXY_KEYS = ("ADDR", "TARGET", "DB", "PRIMARY_REDIRECT_TIMEOUT")

# What those keys are called here.
_NAMES = {
    "listen": "PROXY_ADDR",
    "target": "PROXY['TARGET']",
    "db": "DATABASE_NAME",
    "election": "LEADER_ELECTION",
    "primary": "PRIMARY_HOSTNAME",
    "peers": "RAFT_PEERS",
    "mount": "MOUNT_PATH",
    "data": "DATA_PATH",
    "retention": "RETENTION",
}
# Those that CONFIG may say too.
_UNNAMED = ("peer_listen", "write_hold", "node")


class SettingsError(ValueError):
    """Everything that is wrong with `LITEFS`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read(litefs: Mapping[str, Any]) -> Settings:
    """What `LITEFS` says. Raises SettingsError with all that is wrong."""
    return _Reader(litefs).read()


def database(litefs: Mapping[str, Any]) -> str:
    """The path of the database that `LITEFS` names.

    It is the same on every node, and where there is none, as where an image is built. Raises
    SettingsError.
    """
    return _Reader(litefs).database()


class _Reader:
    def __init__(self, litefs: Mapping[str, Any]) -> None:
        self._litefs = litefs
        self._problems: list[str] = []

    def read(self) -> Settings:
        self._known(self._litefs, KEYS, "LITEFS")
        proxy = self._mapping("PROXY")
        self._known(proxy, PROXY_KEYS, "LITEFS['PROXY']")
        config = self._config()
        given: dict[str, Any] = {
            **self._location(proxy),
            "data": self._path("DATA_PATH"),
            "retention": self._text("RETENTION"),
            "election": self._text("LEADER_ELECTION"),
            "primary": self._text("PRIMARY_HOSTNAME"),
            "target": self._text("TARGET", proxy),
            "listen": self._same("PROXY_ADDR", self._text("ADDR", proxy), "PROXY['ADDR']"),
        }
        for name in _UNNAMED:
            given[name] = take(config, PLACES[name])
        given["write_hold"] = self._text("PRIMARY_REDIRECT_TIMEOUT", proxy) or given["write_hold"]
        enabled = self._litefs.get("ENABLED", True)
        if not isinstance(enabled, bool):
            self._wrong("ENABLED", "write True or False")
        elif enabled:
            self._peers(given)
        self._named_twice(config)
        config = {key: value for key, value in config.items() if value != {}}
        return self._settings(given, config=config, enabled=enabled)

    def database(self) -> str:
        return self._settings(self._location(self._mapping("PROXY"))).database

    def _settings(self, given: Mapping[str, Any], **rest: Any) -> Settings:
        if self._problems:
            raise SettingsError(self._problems)
        said = {name: value for name, value in given.items() if value is not None}
        return Settings(**said, **rest)

    def _location(self, proxy: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "mount": self._path("MOUNT_PATH"),
            "db": self._same("DATABASE_NAME", self._text("DB", proxy), "PROXY['DB']"),
        }

    def _wrong(self, key: str, what: str) -> None:
        self._problems.append(f"LITEFS[{key!r}]: {what}")

    def _known(self, given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
        for key in given:
            if key not in known:
                close = difflib.get_close_matches(str(key).upper(), known, 1)
                remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
                self._problems.append(f"{where} has an unknown key {key!r}: {remedy}")

    def _mapping(self, key: str) -> Mapping[str, Any]:
        value = self._litefs.get(key, {})
        if isinstance(value, Mapping):
            return value
        self._wrong(key, "write a dictionary")
        return {}

    def _text(self, key: str, given: Mapping[str, Any] | None = None) -> str | None:
        given = self._litefs if given is None else given
        value = given.get(key)
        if value is None or (isinstance(value, str) and _fits(value)):
            return value
        self._wrong(key, f"{value!r} is no text, or holds what a file cannot: write a text")
        return None

    def _path(self, key: str) -> str | None:
        value = self._litefs.get(key)
        if value is None:
            return None
        path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
        if isinstance(path, str) and _fits(path) and os.path.isabs(path):
            return path
        self._wrong(key, f"{value!r} is no whole path: write one like /litefs, or BASE_DIR / 'db'")
        return None

    def _same(self, key: str, other: str | None, name: str) -> str | None:
        """Two keys of former designs that say the same."""
        value = self._text(key)
        if value is not None and other is not None and value != other:
            self._wrong(key, f"{value!r}, but {name} is {other!r}: write the same, or one of them")
        return other if value is None else value

    def _config(self) -> dict[str, Any]:
        config = {}
        for key, value in self._mapping("CONFIG").items():
            try:
                config[key] = _plain(value)
            except ValueError as error:
                self._wrong("CONFIG", f"{key}: {error}")
            if not isinstance(key, str) or not _fits(key):
                self._wrong("CONFIG", f"{key!r} is no key: write those of litepilot.yml")
        for section in {place[0] for place in PLACES.values() if len(place) > 1}:
            if not isinstance(config.get(section, {}), dict):
                self._wrong("CONFIG", f"{section} is a section: write a dictionary")
                del config[section]
        if not isinstance(config.get("admin", {}), dict):
            self._wrong("CONFIG", "admin is a section: write a dictionary")
        return config

    def _peers(self, given: dict[str, Any]) -> None:
        try:
            peers = Peers.read(
                self._litefs.get("RAFT_PEERS"),
                self._text("RAFT_SELF_ADDR"),
                self._text("NODE_ID") or given["node"],
            )
        except PeersError as error:
            self._problems.append(f"LITEFS[{error.key!r}]: {error}")
            return
        given["node"], given["peers"] = peers.node, peers.addresses
        given["peer_listen"] = given["peer_listen"] or peers.listen

    def _named_twice(self, config: Mapping[str, Any]) -> None:
        for name, key in _NAMES.items():
            section, of = PLACES[name]
            if of in config.get(section, {}):
                self._wrong("CONFIG", f"{section}.{of} is written as {key}")


def _fits(text: str) -> bool:
    """Whether it can stand in a file, and is not nothing."""
    return bool(text) and "\0" not in text and _encodes(text)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """A value as JSON has it. Raises ValueError."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and _encodes(value):
        return value
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) and _encodes(key) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise ValueError(f"{value!r} cannot be written: use texts, numbers, lists and dictionaries")
