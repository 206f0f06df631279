"""The base of these tests: a directory with a replica's database in it."""

import pathlib
import tempfile
import unittest

from tests import databases


class ReplicaCase(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.replica = databases.make_replica(self.directory / "db.sqlite3")

    def write(self):
        databases.write(self.replica)
