"""Django's backend on a node's directory: roles, refusals, connections that outlive a promotion."""

import sqlite3

import pytest
from django.db import DatabaseError, connections, transaction
from django.db.utils import OperationalError

import tests.guestbook  # noqa: F401
from litepilot.django import following
from litepilot.django.backend.base import DatabaseWrapper
from litepilot.django.errors import NotPrimaryError, SplitBrainError
from tests import databases
from tests.node import Directory


class Node(Directory):
    """A node with a connection of Django's to its database."""

    def __init__(self, path, *, replica=False, **options):
        super().__init__(path, replica=replica)
        settings = {
            **connections.settings["default"],
            "NAME": str(self.database),
            "OPTIONS": options,
        }
        self.connection = DatabaseWrapper(settings, alias="node")

    def execute(self, sql):
        with self.connection.cursor() as cursor:
            return cursor.execute(sql).fetchall()

    def write(self):
        self.execute("INSERT INTO t VALUES (1)")

    def count(self):
        return self.execute("SELECT count(*) FROM t")[0][0]


@pytest.fixture
def make(tmp_path, monkeypatch):
    made = []

    def make(**options):
        node = Node(tmp_path, **options)
        made.append(node)
        # What `transaction.atomic(using="node")` finds.
        monkeypatch.setitem(connections.settings, "node", node.connection.settings_dict)
        connections["node"] = node.connection
        return node

    yield make
    for node in made:
        node.connection.close()
        del connections["node"]


def test_a_primary_writes_to_a_wal(make):
    node = make()
    node.write()
    assert node.count() == 1
    assert node.execute("PRAGMA journal_mode") == [("wal",)]


def test_the_journal_is_the_projects_to_choose(make):
    node = make(journal_mode=None)
    node.write()
    assert node.execute("PRAGMA journal_mode") == [("delete",)]


def begun_with(connection):
    """The statement with which a transaction begins."""
    said = []
    connection.ensure_connection()
    connection.connection.set_trace_callback(said.append)
    with transaction.atomic(using="node"):
        pass
    connection.connection.set_trace_callback(None)
    return said[0]


def test_transactions_are_immediate_on_the_primary_only(make):
    node = make()
    assert begun_with(node.connection) == "BEGIN IMMEDIATE"
    node.connection.close()
    node.demote()
    assert begun_with(node.connection) == "BEGIN DEFERRED"
    with transaction.atomic(using="node"):
        assert node.count() == 0, "a replica reads in a transaction"


def test_a_transaction_may_begin_as_the_project_says(make):
    assert begun_with(make(transaction_mode="EXCLUSIVE").connection) == "BEGIN EXCLUSIVE"


def test_a_refused_write_says_who_is_primary(make):
    node = make(replica=True)
    with pytest.raises(NotPrimaryError, match="node-1 is the primary") as caught:
        node.write()
    assert isinstance(caught.value, (DatabaseError, OperationalError))
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)


def test_a_refusal_within_a_transaction_leaves_the_connection_usable(make):
    node = make(replica=True)
    with pytest.raises(NotPrimaryError), transaction.atomic(using="node"):
        node.write()
    assert node.count() == 0


def test_a_refusal_at_commit(make):
    node = make()
    node.connection.close()
    (node.path / ".primary").write_text("node-1\n")
    with databases.failing_wal(node.database):
        with (
            pytest.raises(NotPrimaryError, match="disk I/O error"),
            transaction.atomic(using="node"),
        ):
            node.write()
        node.connection.close()


def test_a_lock_of_a_transaction_that_was_refused(make):
    node = make(timeout=0)
    node.connection.close()
    with databases.locked(node.database):
        with pytest.raises(OperationalError) as caught:
            node.write()
        assert not isinstance(caught.value, NotPrimaryError), "the primary's locks are its own"
        (node.path / ".primary").write_text("node-1\n")
        with pytest.raises(NotPrimaryError, match="locked"):
            node.write()


def test_a_refusal_while_no_primary_is_known(make):
    node = make(replica=True)
    (node.path / ".primary").unlink()
    with pytest.raises(NotPrimaryError, match="no primary is known"):
        node.write()


def test_a_read_only_file_without_litepilot_is_what_it_is(make):
    node = make(replica=True)
    (node.path / ".primary").unlink()
    (node.path / "db.sqlite3-pos").unlink()
    with pytest.raises(OperationalError) as caught:
        node.write()
    assert not isinstance(caught.value, NotPrimaryError)


def test_a_split_brain_has_a_name_of_its_own(make, monkeypatch):
    monkeypatch.setattr(following, "_split_brain", True)
    with pytest.raises(SplitBrainError):
        make(replica=True).write()


def test_a_replicas_connection_is_renewed_once_it_is_the_primary(make):
    node = make(replica=True)
    assert node.count() == 0
    before = node.connection.connection
    assert node.count() == 0
    assert node.connection.connection is before, "not while it is a replica"
    node.promote()
    with transaction.atomic(using="node"):
        node.write()
        within = node.connection.connection
        node.write()
        assert node.connection.connection is within
    assert within is not before
    assert node.count() == 2
    assert node.connection.connection is within, "once"


def test_a_transaction_by_hand_is_not_cut_in_two_by_a_promotion(make):
    node = make(replica=True)
    node.connection.set_autocommit(False)
    assert node.count() == 0
    within = node.connection.connection
    node.promote()
    assert node.count() == 0
    assert node.connection.connection is within
    node.connection.rollback()
    node.connection.set_autocommit(True)
    node.write()
    assert node.connection.connection is not within


def test_a_connection_that_was_refused_is_renewed(make):
    node = make()
    node.write()
    node.connection.close()
    node.connection.ensure_connection()
    before = node.connection.connection
    node.connection.connection.execute("PRAGMA query_only = 1")
    with pytest.raises(NotPrimaryError):
        node.write()
    node.write()
    assert node.connection.connection is not before


def test_in_memory_it_is_djangos_own():
    settings = {**connections.settings["default"], "NAME": ":memory:", "OPTIONS": {}}
    connection = DatabaseWrapper(settings, alias="memory")
    assert connection.node is None
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (x)")
        cursor.execute("INSERT INTO t VALUES (1)")


def test_the_name_is_what_litefs_says(settings_of, tmp_path):
    settings_of(LITEFS={"MOUNT_PATH": tmp_path, "DATABASE_NAME": "shop.db"})
    for name in ("default", "", None):
        settings = {**connections.settings["default"], "NAME": name, "OPTIONS": {}}
        assert DatabaseWrapper(settings).settings_dict["NAME"] == str(tmp_path / "shop.db")


def test_the_name_is_known_where_there_is_no_node(settings_of, tmp_path):
    litefs = {"MOUNT_PATH": tmp_path, "RAFT_PEERS": ["a:4321", "b:4321"], "RAFT_SELF_ADDR": None}
    settings_of(LITEFS=litefs)
    settings = {**connections.settings["default"], "NAME": "default", "OPTIONS": {}}
    assert DatabaseWrapper(settings).settings_dict["NAME"] == str(tmp_path / "db.sqlite3")


def test_without_litepilot_nothing_is_looked_at(settings_of, make):
    settings_of(LITEFS={"ENABLED": False})
    node = make(replica=True)
    with pytest.raises(OperationalError) as caught:
        node.write()
    assert not isinstance(caught.value, NotPrimaryError)
