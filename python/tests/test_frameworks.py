"""The extension for Flask, what Starlette and FastAPI use, and Django's health view."""

import sqlite3
from typing import Annotated

import fastapi
import flask
import pytest
from django.db import connections
from django.test import RequestFactory
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import tests.guestbook  # noqa: F401
from litepilot.django.backend.base import DatabaseWrapper
from litepilot.django.views import health as django_health
from litepilot.flask import Litepilot
from litepilot.flask import place as flask_place
from litepilot.refusal import is_refused_write
from litepilot.starlette import Place, ReplayReadonlyWrites, health_route, place
from tests import asgi, databases, pages
from tests.node import Directory

REPLICA = {"Litepilot-Role": "replica", "Litepilot-Primary": "node-1"}


@pytest.fixture
def node(tmp_path):
    return Directory(tmp_path, replica=True)


# -- Flask


@pytest.fixture
def flask_app(node):
    app = flask.Flask("tests")
    Litepilot(app, database=node.database)

    @app.get("/write")
    def write():
        databases.write(node.database)
        return "written"

    @app.get("/stream")
    def stream():
        def body():
            databases.write(node.database)
            yield "written"

        return body()

    @app.get("/place")
    def where():
        return flask.jsonify(vars(flask_place()))

    @app.get("/fault")
    def fault():
        raise sqlite3.OperationalError("no such table: t")

    return app


@pytest.mark.parametrize("path", ["/write", "/stream"])
@pytest.mark.parametrize("testing", [False, True])
def test_flask_replays_a_refused_write(flask_app, path, testing):
    flask_app.testing = testing
    answer = flask_app.test_client().get(path, headers=REPLICA)
    assert (answer.status_code, answer.headers["Litepilot-Replay"], answer.data) == (
        409,
        "primary",
        b"",
    )


def test_flask_makes_pages_of_all_else(flask_app):
    client = flask_app.test_client()
    assert client.get("/fault", headers=REPLICA).status_code == 500
    answer = client.get("/write", headers={"Litepilot-Role": "primary"})
    assert (answer.status_code, "Litepilot-Replay" in answer.headers) == (500, False)


def test_flask_knows_its_place(flask_app, monkeypatch):
    monkeypatch.setenv("LITEPILOT_NODE", "node-2")
    client = flask_app.test_client()
    there = client.get("/place", headers=REPLICA).json
    assert there == {"role": "replica", "primary": "node-1", "node": "node-2"}
    assert client.get("/place").json["role"] is None


def test_flask_says_whether_the_database_can_be_read(flask_app, node):
    client = flask_app.test_client()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json["role"], answer.json["primary"]) == (
        200,
        "replica",
        "node-1",
    )
    node.database.unlink()
    assert client.get("/healthz").status_code == 503


# -- Starlette and FastAPI


def starlette_app(node):
    def write(_request):
        databases.write(node.database)

    def where(request: Request):
        return JSONResponse(vars(place(request)))

    app = Starlette(
        routes=[Route("/write", write), Route("/place", where), health_route(node.database)]
    )
    app.add_middleware(ReplayReadonlyWrites)
    return app


def fastapi_app(node):
    app = fastapi.FastAPI()
    app.add_middleware(ReplayReadonlyWrites)
    app.router.routes.append(health_route(node.database))

    @app.get("/write")
    def write():
        databases.write(node.database)

    @app.get("/place")
    def where(where: Annotated[Place, fastapi.Depends(place)]):
        return vars(where)

    return app


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_asgi_frameworks(make, node):
    app = make(node)
    answer = asgi.get(app, "/write", REPLICA)
    assert (answer.status, answer.headers["litepilot-replay"]) == (409, "primary")
    where = asgi.get(app, "/place", REPLICA).json()
    assert (where["role"], where["primary"]) == ("replica", "node-1")
    health = asgi.get(app, "/healthz", {})
    assert (health.status, health.json()["role"]) == (200, "replica")
    node.database.unlink()
    assert asgi.get(app, "/healthz", {}).status == 503


# -- Django


def test_django_says_whether_the_database_can_be_read(node):
    request = RequestFactory().get("/healthz")
    kept = connections["default"]
    settings = {**kept.settings_dict, "NAME": str(node.database), "OPTIONS": {}}
    connections["default"] = DatabaseWrapper(settings, alias="default")
    try:
        assert django_health(request).status_code == 200
        connections["default"].close()
        node.database.write_text("this is no database, and long enough for SQLite to look at it")
        assert django_health(request).status_code == 503
    finally:
        connections["default"].close()
        connections["default"] = kept


# -- SQLAlchemy, as the documentation has it


@pytest.fixture
def engine(node):
    code = pages.python("applications/sqlite.md", "from litepilot.node")
    names = {}
    exec(code.replace("/litefs", str(node.path)), names)
    yield names["engine"]
    names["engine"].dispose()


def test_sqlalchemy_begins_as_a_reader_on_a_replica_and_as_a_writer_on_the_primary(node, engine):
    begun = []

    @event.listens_for(engine, "before_cursor_execute")
    def _note(_connection, _cursor, statement, *_):
        begun.append(statement)

    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0
    with pytest.raises(OperationalError) as caught, engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    assert is_refused_write(caught.value)
    engine.dispose()
    node.promote()
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    assert [statement for statement in begun if "BEGIN" in statement] == [
        "BEGIN",
        "BEGIN",
        "BEGIN IMMEDIATE",
    ]
