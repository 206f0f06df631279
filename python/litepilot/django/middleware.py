"""The replay middleware, under WSGI and ASGI: `litepilot.django.middleware.ReplayReadonlyWrites`, first in MIDDLEWARE.

Django makes an error page of an exception at every layer, so nothing around it sees one: not of a
view, and not of a middleware that writes after the view (SessionMiddleware saving a session that
was changed on GET). Worse, saving an existing session turns SQLite's refusal into "the session
was deleted", a 400. So the refusal is noticed where it happens, at the database connection; and if
the request then ends in an error, whatever it is called by then, it is replayed instead.

A view that catches the refusal and answers well is left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ..refusal import HEADERS, ROLE_HEADER, STATUS, is_refused_write, on_replica


class _Attempt:
    """One request on a replica."""

    def __init__(self) -> None:
        self.refused = False


# The attempt of the request at hand. Django carries context variables along between the event
# loop and the threads that talk to the database.
_attempt: ContextVar[_Attempt | None] = ContextVar("litepilot_attempt", default=None)


class ReplayReadonlyWrites:
    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._answer_async(request)
        if not on_replica(request.headers.get(ROLE_HEADER)):
            response: HttpResponseBase = self.get_response(request)
            return response
        attempt = _Attempt()
        token = _attempt.set(attempt)
        try:
            return _judge(attempt, self.get_response(request))
        finally:
            _attempt.reset(token)

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        if not on_replica(request.headers.get(ROLE_HEADER)):
            response: HttpResponseBase = await self.get_response(request)
            return response
        attempt = _Attempt()
        token = _attempt.set(attempt)
        try:
            return _judge(attempt, await self.get_response(request))
        finally:
            _attempt.reset(token)

    def process_exception(
        self, request: HttpRequest, exception: BaseException
    ) -> HttpResponse | None:
        """Spares the log an error with a traceback where it is a view that was refused."""
        if on_replica(request.headers.get(ROLE_HEADER)) and is_refused_write(exception):
            return _replay()
        return None


def _judge(attempt: _Attempt, response: HttpResponseBase) -> HttpResponseBase:
    if attempt.refused and response.status_code >= 400:
        response.close()
        return _replay()
    return response


def _replay() -> HttpResponse:
    return HttpResponse(status=STATUS, headers=dict(HEADERS))


def _notice_refusal(
    execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    try:
        return execute(sql, params, many, context)
    except Exception as error:
        _note_if_refused(error)
        raise


def _noticing_commit(commit: Callable[[], Any]) -> Callable[[], Any]:
    """A COMMIT is no statement that `execute_wrappers` see, and with a WAL it is what fails."""

    def noticed() -> Any:
        try:
            return commit()
        except Exception as error:
            _note_if_refused(error)
            raise

    return noticed


def _note_if_refused(error: Exception) -> None:
    attempt = _attempt.get()
    if attempt is not None and is_refused_write(error):
        attempt.refused = True


def _watch(connection: Any, **_: Any) -> None:
    # The signal comes with each new connection of the same wrapper.
    if _notice_refusal not in connection.execute_wrappers:
        # Not last: `execute_wrapper()` takes the last one for its own when it ends.
        connection.execute_wrappers.insert(0, _notice_refusal)
        connection._commit = _noticing_commit(connection._commit)


connection_created.connect(_watch, dispatch_uid="litepilot")
