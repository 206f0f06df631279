"""When SQLite has refused a write because this node is a replica, and how to ask for a replay."""

from __future__ import annotations

import sqlite3

# What SQLite says to a write on a replica. With a rollback journal it is refused; while another
# connection there is still in a transaction that was refused, it is locked out; with a WAL, at the
# write or at the commit, it fails as if the disk did.
MESSAGES = ("attempt to write a readonly database", "database is locked", "disk I/O error")
# The same as codes (https://sqlite.org/rescode.html). The lower byte of an extended code.
READONLY, BUSY, IOERR = 8, 5, 10
CODES = (READONLY, BUSY, IOERR)

ROLE_HEADER = "Litepilot-Role"
PRIMARY_HEADER = "Litepilot-Primary"
STATUS = 409
REASON = "Conflict"
HEADERS = [("Litepilot-Replay", "primary"), ("Cache-Control", "no-store"), ("Content-Length", "0")]


def on_replica(role: str | None) -> bool:
    """Whether a request with this `Litepilot-Role` runs on a replica.

    On the primary a read-only database is a fault to be seen, not to be replayed: the request
    would come back to the same place.
    """
    return role == "replica"


def is_refused_write(error: BaseException) -> bool:
    """Whether what SQLite says to a write on a replica is this exception, or lies beneath it.

    Frameworks wrap it: Django and SQLAlchemy chain theirs to it (`__cause__`), code that fails
    while it handles it has it as `__context__`, task groups hold it among their `exceptions`.
    """
    pending: list[BaseException | None] = [error]
    seen = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, sqlite3.OperationalError) and _says_refused(current):
            return True
        pending += [current.__cause__, current.__context__, *getattr(current, "exceptions", ())]
    return False


def is_readonly(error: sqlite3.OperationalError) -> bool:
    """Whether SQLite says that the database can only be read."""
    code = _code(error)
    return MESSAGES[0] in str(error) if code is None else code == READONLY


def _says_refused(error: sqlite3.OperationalError) -> bool:
    code = _code(error)
    if code is not None:
        return code in CODES
    return any(message in str(error) for message in MESSAGES)


def _code(error: sqlite3.OperationalError) -> int | None:
    """Before Python 3.11, and in exceptions that libraries make themselves, there is none."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None
