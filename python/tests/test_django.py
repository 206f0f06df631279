"""The Django middleware in the Django guestbook, on a database that refuses writes."""

import logging
import unittest
from contextlib import contextmanager

from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.db import connections
from django.test import AsyncClient, Client

from tests import databases
from tests.guestbook import DATABASE

REPLICA = {"litepilot-role": "replica"}


@contextmanager
def writable_until_commit():
    """The database with a WAL that refuses to grow, in place of the one that refuses each write."""
    connections.close_all()
    databases.take_writes(DATABASE)
    try:
        with databases.failing_wal(DATABASE):
            yield
            connections.close_all()
    finally:
        databases.refuse_writes(DATABASE)


class Django(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        logging.disable(logging.CRITICAL)
        cls.addClassCleanup(logging.disable, logging.NOTSET)
        call_command("migrate", verbosity=0)
        session = SessionStore()
        session["visits"] = 1
        session.save()
        cls.session_key = session.session_key
        connections.close_all()
        databases.refuse_writes(DATABASE)

    def client(self, kind, with_session=False):
        # Error pages rather than exceptions, as a server would get them.
        client = kind(raise_request_exception=False)
        if with_session:
            client.cookies["sessionid"] = self.session_key
        return client

    def assert_replayed(self, response):
        self.assertEqual(response.status_code, 409)
        self.assertEqual(response.headers["Litepilot-Replay"], "primary")
        self.assertEqual(response.content, b"")

    def test_a_new_session_on_get(self):
        self.assert_replayed(self.client(Client).get("/visits/", headers=REPLICA))

    def test_a_session_that_exists_is_not_a_deleted_one(self):
        self.assert_replayed(self.client(Client, True).get("/visits/", headers=REPLICA))

    def test_a_view_that_writes(self):
        response = self.client(Client).post("/api/count", headers=REPLICA)
        self.assert_replayed(response)

    def test_a_session_that_is_refused_at_its_commit(self):
        with writable_until_commit():
            self.assert_replayed(self.client(Client).get("/visits/", headers=REPLICA))
            self.assert_replayed(self.client(Client, True).get("/visits/", headers=REPLICA))

    def test_a_view_that_writes_is_no_error_in_the_log(self):
        logging.disable(logging.NOTSET)
        self.addCleanup(logging.disable, logging.CRITICAL)
        with self.assertNoLogs("django.request", logging.ERROR):
            self.client(Client).post("/api/count", headers=REPLICA)

    def test_reads_are_left_alone(self):
        for path in ("/", "/api/entries", "/whoami"):
            response = self.client(Client, True).get(path, headers=REPLICA)
            self.assertEqual(response.status_code, 200, path)

    def test_other_errors_are_left_alone(self):
        response = self.client(Client).get("/no-such-page", headers=REPLICA)
        self.assertEqual(response.status_code, 404)

    def test_not_on_the_primary_and_not_without_litepilot(self):
        for headers in ({"litepilot-role": "primary"}, {}):
            response = self.client(Client).get("/visits/", headers=headers)
            self.assertEqual(response.status_code, 500)
            self.assertNotIn("Litepilot-Replay", response.headers)

    def test_one_refusal_does_not_stain_the_next_request(self):
        client = self.client(Client)
        client.get("/visits/", headers=REPLICA)
        self.assertEqual(client.get("/no-such-page", headers=REPLICA).status_code, 404)

    def test_what_a_project_wraps_around_its_queries_ends_where_it_says(self):
        connection = connections["default"]
        connection.close()
        connection.execute_wrappers.clear()

        def wrapped(execute, *query):
            return execute(*query)

        with connection.execute_wrapper(wrapped):
            connection.ensure_connection()
        self.assertNotIn(wrapped, connection.execute_wrappers)
        self.assert_replayed(self.client(Client).get("/visits/", headers=REPLICA))

    async def test_under_asgi(self):
        for with_session in (False, True):
            client = self.client(AsyncClient, with_session)
            self.assert_replayed(await client.get("/visits/", headers=REPLICA))
            self.assert_replayed(await client.post("/api/count", headers=REPLICA))
            self.assertEqual((await client.get("/", headers=REPLICA)).status_code, 200)
