"""For WSGI applications that let exceptions out.

Flask does so with `PROPAGATE_EXCEPTIONS = True`. For Django use `litepilot.django.middleware`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .refusal import HEADERS, REASON, STATUS, is_refused_write, on_replica

Environ = dict[str, Any]
Write = Callable[[bytes], object]
# Its third argument is optional, which `Callable` cannot say.
StartResponse = Callable[..., Write]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class ReplayReadonlyWrites:
    """Wraps a WSGI application: `app = ReplayReadonlyWrites(app)`."""

    def __init__(self, app: Application) -> None:
        self.app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not on_replica(environ.get("HTTP_LITEPILOT_ROLE")):
            return self.app(environ, start_response)
        return self._guarded(environ, start_response)

    def _guarded(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start = _DeferredStart(start_response)
        body: Iterable[bytes] = ()
        try:
            body = self.app(environ, start)
            for piece in body:
                if piece:
                    start.send()
                    yield piece
            start.send()
        except Exception as error:
            if start.sent or not is_refused_write(error):
                raise
            start_response(f"{STATUS} {REASON}", list(HEADERS))
        finally:
            if hasattr(body, "close"):
                body.close()


class _DeferredStart:
    """A `start_response` that keeps the head back until there is a body to go with it.

    PEP 3333 has servers do that too, but not every server forgets the first head's headers when
    it is given a second head.
    """

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self.sent = False

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Write:
        if self.sent:
            # The server raises it again, as PEP 3333 demands.
            return self._start_response(status, headers, exc_info)
        self._head = (status, headers)
        return self._write

    def _write(self, data: bytes) -> None:
        self.send()(data)

    def send(self) -> Write:
        """Hands the head on, once; returns the server's `write`."""
        if not self.sent:
            if self._head is None:
                raise AssertionError(
                    "the application has sent a body before it called start_response"
                )
            self.sent = True
            self._server_write = self._start_response(*self._head)
        return self._server_write
