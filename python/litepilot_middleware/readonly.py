"""What the middlewares share: when to ask for a replay, and how."""

import sqlite3

MESSAGE = "attempt to write a readonly database"

ROLE_HEADER = "Litepilot-Role"
STATUS = 409
REASON = "Conflict"
HEADERS = [("Litepilot-Replay", "primary"), ("Cache-Control", "no-store"), ("Content-Length", "0")]


def on_replica(role):
    """Whether a request with this `Litepilot-Role` runs on a replica.

    On the primary a read-only database is a fault to be seen, not to be replayed: the request
    would come back to the same place.
    """
    return role == "replica"


def is_refused_write(error):
    """Whether SQLite's refusal of a write is this exception, or lies anywhere beneath it.

    Frameworks wrap it: Django and SQLAlchemy chain theirs to it (`__cause__`), code that fails
    while it handles it has it as `__context__`, task groups hold it among their `exceptions`.
    """
    pending, seen = [error], set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, sqlite3.OperationalError) and MESSAGE in str(current):
            return True
        pending += [current.__cause__, current.__context__, *getattr(current, "exceptions", ())]
    return False
