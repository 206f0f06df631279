"""What the node's admin port says: its status, and what happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:9180"

# An event's text has 1 KiB at most, a status a few.
_LONGEST_LINE = 64 * 1024
_LONGEST_STATUS = 4 * 1024 * 1024
# A node sends something at least each 15 s.
_SILENCE = 40.0


class AdminError(Exception):
    """The node did not answer, or not as it should."""


@dataclass(frozen=True)
class Event:
    """Something that happened on the node."""

    at: str
    """When: RFC 3339, UTC, with milliseconds."""
    kind: str
    """In one word, as in Litepilot's docs/operations.md: `primary-changed`, `split-brain`, …"""
    text: str
    """What, for people."""


class Admin:
    """A node's admin port."""

    def __init__(self, url: str = DEFAULT_URL, timeout: float = 5.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of an admin port: write one like {DEFAULT_URL}")
        self.url = url
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        self._timeout = timeout

    def status(self) -> dict[str, Any]:
        """What `GET /status` answers.

        Raises AdminError.
        """
        connection = self._connect(self._timeout)
        try:
            body = self._get(connection, "/status").read(_LONGEST_STATUS)
            status = json.loads(body)
        except (OSError, HTTPException, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        if not isinstance(status, dict):
            raise AdminError(f"{self.url}/status answered with no JSON object")
        return status

    def events(self) -> Iterator[Event]:
        """The latest events, oldest first, and then what happens, until the node ends it.

        Raises AdminError.
        """
        connection = self._connect(_SILENCE)
        try:
            response = self._get(connection, "/events")
            while line := response.readline(_LONGEST_LINE):
                if (event := _event(line)) is not None:
                    yield event
        except (OSError, HTTPException, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _connect(self, timeout: float) -> HTTPConnection:
        return self._kind(self._host, self._port, timeout=timeout)

    def _get(self, connection: HTTPConnection, path: str) -> HTTPResponse:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != 200:
            reason = response.read(1024).decode(errors="replace").strip()
            raise AdminError(f"{self.url}{path} answered {response.status}: {reason}")
        return response

    def _unreachable(self, error: Exception) -> AdminError:
        return AdminError(f"the admin port {self.url} cannot be read: {error}")


def _event(line: bytes) -> Event | None:
    """Comments, and messages that are no events, are left out."""
    if not line.startswith(b"data: "):
        return None
    data = json.loads(line[len(b"data: ") :])
    try:
        return Event(str(data["at"]), str(data["kind"]), str(data["text"]))
    except (KeyError, TypeError):
        # `event: missed`, which tells how many were.
        return None
