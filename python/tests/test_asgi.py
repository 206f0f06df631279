"""The ASGI middleware, called as a server calls it."""

import asyncio
import sqlite3

from litepilot_middleware.asgi import ReplayReadonlyWrites
from tests import databases
from tests.case import ReplicaCase


def ask(app, role, kind="http"):
    """The messages that the server gets."""
    headers = [(b"litepilot-role", role)] if role else []
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    asyncio.run(ReplayReadonlyWrites(app)({"type": kind, "headers": headers}, receive, send))
    return sent


class Asgi(ReplicaCase):
    async def writes_at_once(self, scope, receive, send):
        self.write()

    async def writes_after_the_head(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.write()

    def test_a_refused_write_is_replayed(self):
        start, body = ask(self.writes_at_once, b"replica")
        self.assertEqual(start["status"], 409)
        self.assertEqual(dict(start["headers"])[b"litepilot-replay"], b"primary")
        self.assertEqual(body, {"type": "http.response.body", "body": b""})

    def test_a_refusal_at_the_commit_is_replayed(self):
        path = databases.make(self.directory / "wal.sqlite3")

        async def app(scope, receive, send):
            databases.write(path)

        with databases.failing_wal(path):
            start, _ = ask(app, b"replica")
        self.assertEqual(dict(start["headers"])[b"litepilot-replay"], b"primary")

    def test_not_on_the_primary_and_not_without_litepilot(self):
        for role in (b"primary", None):
            with self.assertRaises(sqlite3.OperationalError):
                ask(self.writes_at_once, role)

    def test_not_once_the_client_has_the_head(self):
        with self.assertRaises(sqlite3.OperationalError):
            ask(self.writes_after_the_head, b"replica")

    def test_not_a_websocket(self):
        with self.assertRaises(sqlite3.OperationalError):
            ask(self.writes_at_once, b"replica", kind="websocket")

    def test_other_errors_pass_through(self):
        async def app(scope, receive, send):
            raise sqlite3.OperationalError("no such table: t")

        with self.assertRaises(sqlite3.OperationalError):
            ask(app, b"replica")
