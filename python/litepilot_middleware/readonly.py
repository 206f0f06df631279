"""What the middlewares share: when to ask for a replay, and how."""

import sqlite3

# What SQLite says to a write on a replica. With a rollback journal it is refused; while another
# connection there is still in a transaction that was refused, it is locked out; with a WAL, at the
# write or at the commit, it fails as if the disk did.
MESSAGES = ("attempt to write a readonly database", "database is locked", "disk I/O error")
# The same as codes (https://sqlite.org/rescode.html): SQLITE_READONLY, SQLITE_BUSY, SQLITE_IOERR. The
# lower byte of an extended code.
CODES = (8, 5, 10)

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
    """Whether what SQLite says to a write on a replica is this exception, or lies beneath it.

    Frameworks wrap it: Django and SQLAlchemy chain theirs to it (`__cause__`), code that fails
    while it handles it has it as `__context__`, task groups hold it among their `exceptions`.
    """
    pending, seen = [error], set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, sqlite3.OperationalError) and _says_refused(current):
            return True
        pending += [current.__cause__, current.__context__, *getattr(current, "exceptions", ())]
    return False


def _says_refused(error):
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in CODES
    # Python before 3.11, and exceptions that libraries make themselves.
    return any(message in str(error) for message in MESSAGES)
