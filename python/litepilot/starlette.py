"""For Starlette and FastAPI.

app.add_middleware(ReplayReadonlyWrites)             a request that turns out to write on a replica
                                                     is sent again to the primary
where: Annotated[Place, Depends(place)]              where a request is served, and who is primary
app.router.routes.append(health_route(DATABASE))     for `app.health: /healthz`
"""

from __future__ import annotations

import os

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .asgi import ReplayReadonlyWrites
from .health import ask
from .node import Place

__all__ = ["Place", "ReplayReadonlyWrites", "health_route", "place"]


# FastAPI reads these annotations.
def place(connection: HTTPConnection) -> Place:
    """Where a request, or a WebSocket, is served."""
    return Place.of(connection.headers)


def health_route(database: str | os.PathLike[str], path: str = "/healthz") -> Route:
    """Says whether the database can be read."""

    def health(_request: Request) -> Response:
        status, said = ask(database)
        return JSONResponse(said, status, headers={"Cache-Control": "no-store"})

    return Route(path, health, name="litepilot_health")
