"""What the backend raises where LiteFS refuses a write."""

from __future__ import annotations

from django.db.utils import OperationalError


class NotPrimaryError(OperationalError):
    """The write was refused, since this node is not the primary. Nothing was written.

    Django's DatabaseError and OperationalError, too: who catches these goes on doing so.
    """


class SplitBrainError(NotPrimaryError):
    """The same while the node reports that two nodes claim to be the primary."""
