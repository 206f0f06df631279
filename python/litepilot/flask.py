"""An extension for Flask: `Litepilot(app)`.

* A request that turns out to write on a replica is sent again to the primary.
* `place()` says where the request at hand is served, and who is primary.
* With `database`, `/healthz` says whether that can be read, for `app.health`.
"""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify, request

from .health import ask
from .node import Place
from .refusal import HEADERS, STATUS, is_refused_write, on_replica
from .wsgi import ReplayReadonlyWrites

__all__ = ["Litepilot", "Place", "place"]


def place() -> Place:
    """Where the request at hand is served."""
    return Place.of(request.headers)


class Litepilot:
    def __init__(
        self,
        app: Flask | None = None,
        *,
        database: str | os.PathLike[str] | None = None,
        health: str = "/healthz",
    ) -> None:
        self._database, self._health = database, health
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        app.extensions["litepilot"] = self
        handle = app.handle_exception

        def handle_exception(error: Exception) -> Response:
            if on_replica(place().role) and is_refused_write(error):
                return Response(status=STATUS, headers=HEADERS)
            return handle(error)

        # Where Flask makes a page of what nobody has caught: a response instead.
        app.handle_exception = handle_exception  # type: ignore[method-assign, assignment]
        # And what comes later, while the body is made.
        app.wsgi_app = ReplayReadonlyWrites(app.wsgi_app)  # type: ignore[method-assign]
        if self._database is not None:
            app.add_url_rule(self._health, "litepilot_health", self._ask)

    def _ask(self) -> tuple[Response, int]:
        assert self._database is not None
        status, said = ask(self._database)
        response = jsonify(said)
        response.headers["Cache-Control"] = "no-store"
        return response, status
