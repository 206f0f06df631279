"""`litepilot.refusal`, by its former name."""

from litepilot.refusal import (
    CODES,
    HEADERS,
    MESSAGES,
    REASON,
    ROLE_HEADER,
    STATUS,
    is_refused_write,
    on_replica,
)

__all__ = [
    "CODES",
    "HEADERS",
    "MESSAGES",
    "REASON",
    "ROLE_HEADER",
    "STATUS",
    "is_refused_write",
    "on_replica",
]
