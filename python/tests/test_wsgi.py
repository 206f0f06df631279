"""The WSGI middleware, called as a server calls it."""

import io
import sqlite3
import sys
from wsgiref.handlers import SimpleHandler
from wsgiref.util import setup_testing_defaults

from litepilot_middleware.wsgi import ReplayReadonlyWrites
from tests import databases
from tests.case import ReplicaCase


class QuietHandler(SimpleHandler):
    """The standard library's server side, without a log and without its own error page."""

    def log_exception(self, exc_info):
        pass

    def error_output(self, environ, start_response):
        start_response("500 Internal Server Error", [], None)
        return []


def ask(app, role):
    """The whole response as the server writes it."""
    environ = {}
    setup_testing_defaults(environ)
    if role:
        environ["HTTP_LITEPILOT_ROLE"] = role
    written = io.BytesIO()
    QuietHandler(io.BytesIO(), written, io.StringIO(), environ).run(ReplayReadonlyWrites(app))
    return written.getvalue().decode()


class Wsgi(ReplicaCase):
    def writes_at_once(self, environ, start_response):
        self.write()
        start_response("200 OK", [])
        return [b"written"]

    def assert_replayed(self, response):
        head, _, body = response.partition("\r\n\r\n")
        self.assertTrue(head.startswith("HTTP/1.0 409 Conflict"), head)
        self.assertIn("Litepilot-Replay: primary", head)
        self.assertEqual(head.lower().count("content-length"), 1, head)
        self.assertEqual(body, "")

    def test_a_refused_write_is_replayed(self):
        self.assert_replayed(ask(self.writes_at_once, "replica"))

    def test_a_refusal_at_the_commit_is_replayed(self):
        path = databases.make(self.directory / "wal.sqlite3")

        def app(environ, start_response):
            databases.write(path)
            start_response("200 OK", [])
            return [b"written"]

        with databases.failing_wal(path):
            self.assert_replayed(ask(app, "replica"))

    def test_not_on_the_primary_and_not_without_litepilot(self):
        for role in ("primary", None):
            self.assertIn("HTTP/1.0 500", ask(self.writes_at_once, role))

    def test_a_body_that_writes_before_its_first_byte(self):
        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "7")])
            yield b""
            self.write()
            yield b"written"

        self.assert_replayed(ask(app, "replica"))

    def test_not_once_the_client_has_something(self):
        def app(environ, start_response):
            start_response("200 OK", [])
            yield b"first"
            self.write()

        response = ask(app, "replica")
        self.assertIn("HTTP/1.0 200 OK", response)
        self.assertNotIn("Litepilot-Replay", response)

    def test_not_once_write_was_called(self):
        def app(environ, start_response):
            start_response("200 OK", [])(b"first")
            self.write()

        response = ask(app, "replica")
        self.assertIn("first", response)
        self.assertNotIn("Litepilot-Replay", response)

    def test_other_errors_pass_through(self):
        def app(environ, start_response):
            raise sqlite3.OperationalError("no such table: t")

        self.assertIn("HTTP/1.0 500", ask(app, "replica"))

    def test_an_application_may_replace_its_own_head(self):
        def app(environ, start_response):
            start_response("200 OK", [])
            try:
                raise ValueError
            except ValueError:
                start_response("418 Teapot", [("X-Second", "yes")], sys.exc_info())
            return [b"tea"]

        response = ask(app, "replica")
        self.assertIn("HTTP/1.0 418 Teapot", response)
        self.assertTrue(response.endswith("tea"))

    def test_an_empty_body_has_a_head(self):
        def app(environ, start_response):
            start_response("204 No Content", [("X-Here", "yes")])
            return []

        self.assertIn("X-Here: yes", ask(app, "replica"))

    def test_the_body_is_closed(self):
        closed = []

        class Body(list):
            def close(self):
                closed.append(True)

        def app(environ, start_response):
            start_response("200 OK", [])
            return Body([b"read"])

        ask(app, "replica")
        self.assertEqual(closed, [True])
