"""Signals about the cluster, as this node hears of it.

They are sent in a thread of each process that has receivers, from its first request on; a process
without requests (a worker) calls `litepilot.django.following.start()`. A node tells sixteen at once:
with more processes, have one of them listen.
"""

from __future__ import annotations

from django.dispatch import Signal

primary_changed = Signal()
"""Another node is primary. `primary`: its name, or `None` if it is unknown again; `epoch`; `text`; `at`."""

split_brain_detected = Signal()
"""Two nodes claim to be the primary. Must not happen; needs an operator. `text`; `at`."""
