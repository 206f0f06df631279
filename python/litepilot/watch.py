"""Follows a node's events in a thread, through its restarts."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from math import floor

from .admin import Admin, AdminError, Event

logger = logging.getLogger("litepilot")

# Before a node that does not answer is asked again.
_PAUSE = 1.0
# More than a node tells those who come anew.
_REMEMBERED = 512


class Watch(threading.Thread):
    """Calls `tell` with each event that happens from now on, once, in this thread."""

    def __init__(self, admin: Admin, tell: Callable[[Event], None]) -> None:
        super().__init__(name="litepilot-watch", daemon=True)
        self._admin, self._tell = admin, tell
        self._stopping = threading.Event()
        self._said = ""
        # Events have milliseconds.
        self._since = floor(time.time() * 1000) / 1000
        # A node begins with its latest events, those told already among them.
        self._told: deque[Event] = deque(maxlen=_REMEMBERED)

    def stop(self) -> None:
        """Ends it at the next event, or when the node is next asked."""
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                for event in self._admin.events():
                    if self._stopping.is_set():
                        return
                    self._consider(event)
            except AdminError as error:
                self._say(str(error))
            self._stopping.wait(_PAUSE)

    def _say(self, why: str) -> None:
        """Once for each reason: it is asked again each second."""
        if why != self._said:
            self._said = why
            logger.warning("Litepilot's events cannot be followed, and are waited for: %s", why)

    def _consider(self, event: Event) -> None:
        try:
            if _moment(event.at) < self._since or event in self._told:
                return
            self._told.append(event)
            self._tell(event)
        except Exception:
            logger.exception("what follows Litepilot's events failed at %s", event.kind)


def _moment(at: str) -> float:
    """Seconds since 1970. The fraction has any number of digits, or is missing."""
    whole, _, fraction = at.rstrip("Z").partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return moment.timestamp() + float(f"0.{fraction or 0}")
