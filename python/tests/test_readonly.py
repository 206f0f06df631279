"""What counts as SQLite's refusal of a write, and what does not."""

import sqlite3
import unittest

from django.db import DatabaseError
from django.db.utils import OperationalError

from litepilot_middleware.readonly import is_refused_write
from tests.case import ReplicaCase


class RefusedWrite(ReplicaCase):
    def refusal(self):
        with self.assertRaises(sqlite3.OperationalError) as caught:
            self.write()
        return caught.exception

    def test_itself(self):
        self.assertTrue(is_refused_write(self.refusal()))

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
        self.assertFalse(is_refused_write(sqlite3.OperationalError("database is locked")))

    def test_the_same_words_from_elsewhere(self):
        self.assertFalse(is_refused_write(ValueError("attempt to write a readonly database")))


if __name__ == "__main__":
    unittest.main()
