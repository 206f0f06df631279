"""The base of these tests: a directory with a replica's database in it."""

import pathlib
import tempfile
import unittest

from tests import databases


class ReplicaCase(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.replica = databases.make_replica(pathlib.Path(directory.name, "db.sqlite3"))

    def write(self):
        databases.write(self.replica)
