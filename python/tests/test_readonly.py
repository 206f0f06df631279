"""What counts as SQLite's refusal of a write, and what does not."""

import sqlite3
import unittest
from contextlib import closing

from django.db import DatabaseError
from django.db.utils import OperationalError

from litepilot_middleware.readonly import is_refused_write
from tests import databases
from tests.case import ReplicaCase


class RefusedWrite(ReplicaCase):
    def refusal(self):
        with self.assertRaises(sqlite3.OperationalError) as caught:
            self.write()
        return caught.exception

    def test_itself(self):
        self.assertTrue(is_refused_write(self.refusal()))

    def test_a_lock_of_a_transaction_that_was_refused(self):
        path = databases.make(self.directory / "locked.sqlite3")
        with databases.locked(path), self.assertRaises(sqlite3.OperationalError) as caught:
            databases.write(path, timeout=0)
        self.assertTrue(is_refused_write(caught.exception))

    def test_a_wal_that_cannot_be_written_at_the_commit(self):
        path = databases.make(self.directory / "wal.sqlite3")
        with databases.failing_wal(path), closing(sqlite3.connect(path)) as connection:
            connection.execute("INSERT INTO t VALUES (1)")
            with self.assertRaises(sqlite3.OperationalError) as caught:
                connection.commit()
        self.assertIn("disk I/O error", str(caught.exception))
        self.assertTrue(is_refused_write(caught.exception))

    def test_by_its_words_where_there_is_no_code(self):
        for words in (
            "attempt to write a readonly database",
            "database is locked",
            "disk I/O error",
        ):
            self.assertTrue(is_refused_write(sqlite3.OperationalError(words)), words)

    def test_wrapped_as_django_and_sqlalchemy_do(self):
        wrapped = OperationalError("any words")
        wrapped.__cause__ = self.refusal()
        self.assertTrue(is_refused_write(wrapped))

    def test_beneath_an_error_of_its_handler(self):
        try:
            try:
                self.write()
            except sqlite3.OperationalError:
                raise DatabaseError("the handler failed") from None
        except DatabaseError as error:
            self.assertTrue(is_refused_write(error))

    def test_in_a_task_group(self):
        group = ExceptionGroup("tasks", [ValueError(), ExceptionGroup("more", [self.refusal()])])
        self.assertTrue(is_refused_write(group))

    def test_a_chain_that_bites_its_tail(self):
        error = ValueError()
        error.__cause__ = KeyError()
        error.__cause__.__cause__ = error
        self.assertFalse(is_refused_write(error))

    def test_other_errors_of_sqlite(self):
        with (
            closing(sqlite3.connect(":memory:")) as connection,
            self.assertRaises(sqlite3.OperationalError) as caught,
        ):
            connection.execute("SELECT * FROM absent")
        self.assertFalse(is_refused_write(caught.exception))

    def test_the_same_words_from_elsewhere(self):
        self.assertFalse(is_refused_write(ValueError("attempt to write a readonly database")))


if __name__ == "__main__":
    unittest.main()
