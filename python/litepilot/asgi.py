"""For ASGI applications that let exceptions out, as Starlette and FastAPI do.

For Django use `litepilot.django.middleware`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .refusal import HEADERS, ROLE_HEADER, STATUS, is_refused_write, on_replica

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_ROLE = ROLE_HEADER.lower().encode()
_REPLAY = [(name.lower().encode(), value.encode()) for name, value in HEADERS]


class ReplayReadonlyWrites:
    """Wraps an ASGI application: `app = ReplayReadonlyWrites(app)`."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_on_replica(scope):
            return await self.app(scope, receive, send)
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception as error:
            if started or not is_refused_write(error):
                raise
            await send({"type": "http.response.start", "status": STATUS, "headers": _REPLAY})
            await send({"type": "http.response.body", "body": b""})


def _is_on_replica(scope: Scope) -> bool:
    role = dict(scope["headers"]).get(_ROLE, b"")
    return on_replica(role.decode("latin-1"))
