"""Turns the node's events into signals."""

from __future__ import annotations

import os
import threading
from typing import Any

from django.core.signals import request_started
from django.db import connections

from ..admin import Admin, AdminError, Event
from ..watch import Watch
from . import conf
from .signals import primary_changed, split_brain_detected

_lock = threading.Lock()
# The watch, and the process that it runs in: a thread does not survive a fork.
_running: tuple[int, Watch] | None = None
_split_brain = False


def start() -> Watch | None:
    """Follows the events of this node, if there is one. Once in each process."""
    global _running
    with _lock:
        if _running is not None and _running[0] == os.getpid():
            return _running[1]
        settings = conf.load()
        if not settings.enabled:
            return None
        admin = Admin(settings.admin_url)
        watch = Watch(admin, lambda event: _tell(admin, event))
        _running = (os.getpid(), watch)
        watch.start()
        return watch


def stop() -> None:
    """Ends what `start` began."""
    global _running
    with _lock:
        if _running is not None:
            _running[1].stop()
            _running = None


def split_brain() -> bool:
    """Whether the node has reported one, and no new primary since. Known where events are followed."""
    return _split_brain


def _tell(admin: Admin, event: Event) -> None:
    global _split_brain
    try:
        if event.kind == "primary-changed":
            _split_brain = False
            told = _primary(admin)
            primary_changed.send_robust(Watch, text=event.text, at=event.at, **told)
        elif event.kind == "split-brain":
            _split_brain = True
            split_brain_detected.send_robust(Watch, text=event.text, at=event.at)
    finally:
        # Those of this thread, which receivers may have opened.
        connections.close_all()


def _primary(admin: Admin) -> dict[str, Any]:
    try:
        primary = admin.status().get("primary") or {}
    except AdminError:
        primary = {}
    return {"primary": primary.get("node"), "epoch": primary.get("epoch")}


def _begin(**_: Any) -> None:
    if _running is not None and _running[0] == os.getpid():
        return
    if primary_changed.has_listeners() or split_brain_detected.has_listeners():
        start()


request_started.connect(_begin, dispatch_uid="litepilot.following")
