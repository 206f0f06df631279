"""Django's own SQLite backend, on a database that LiteFS replicates.

* Transactions begin IMMEDIATE on the primary: one that begins as a reader cannot wait to become a
  writer. On a replica they are DEFERRED: it cannot write anyway, and the write lock of an IMMEDIATE
  one would hold up what comes from the primary (LiteFS), or be refused (the embedded engine).
* The journal is a WAL, unless OPTIONS say `"journal_mode": None` or another one.
* A refused write is NotPrimaryError, at the statement or at COMMIT.
* A connection that was opened as a replica's is renewed after a promotion: with the embedded engine it
  could only read.

Only the directory of the database is looked at (`litepilot.node`). In memory, as in tests, it is
Django's backend with IMMEDIATE transactions.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from django.db.backends.sqlite3 import base as sqlite
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property

from ...node import Node
from ...refusal import is_readonly, is_refused_write
from .. import conf, following
from ..errors import NotPrimaryError, SplitBrainError

# Names by which former designs meant the database that LITEFS names.
_OF_SETTINGS = ("", "default", None)
# As long as a handoff may hold the write lock, and twice Django's own.
_TIMEOUT = 10.0


class DatabaseWrapper(sqlite.DatabaseWrapper):
    display_name = "SQLite with Litepilot"

    def __init__(self, settings_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        if settings_dict["NAME"] in _OF_SETTINGS:
            settings_dict["NAME"] = conf.database()
        super().__init__(settings_dict, *args, **kwargs)
        self._enabled = conf.is_enabled()
        # Of the connection at hand.
        self._opened_to_read = False
        self._refused = False

    @property
    def node(self) -> Node | None:
        """This node; `None` where there is no Litepilot."""
        if not self._enabled or self.is_in_memory_db():
            return None
        return Node.of(self.settings_dict["NAME"])

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        # Before Django 5.1 there is no transaction_mode: then it is still there.
        params.pop("transaction_mode", None)
        mode = self.settings_dict["OPTIONS"].get("transaction_mode")
        self._transaction_mode = mode.upper() if mode else "IMMEDIATE"
        self._journal_mode = params.pop("journal_mode", "WAL")
        return {"timeout": _TIMEOUT, **params}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        node = self.node
        to_read = node is not None and node.is_replica()
        connection = super().get_new_connection(conn_params)
        self._opened_to_read = to_read or (node is not None and not self._may_write())
        self._refused = False
        if self._journal_mode and not self.is_in_memory_db() and not self._opened_to_read:
            self._set_journal_mode(connection)
        return connection

    def _may_write(self) -> bool:
        """LiteFS takes that right away from a replica's files, though not from root."""
        name = self.settings_dict["NAME"]
        return os.access(name, os.W_OK) or not os.path.exists(name)

    def _set_journal_mode(self, connection: Any) -> None:
        try:
            connection.execute(f"PRAGMA journal_mode = {self._journal_mode}").fetchall()
        except sqlite3.OperationalError as error:
            # While there is no primary it can still be read. A later connection sets it.
            if not is_refused_write(error):
                raise

    def ensure_connection(self) -> None:
        if self.connection is not None and self._is_outlived():
            self.close()
        super().ensure_connection()

    def _is_outlived(self) -> bool:
        """Whether a new connection could write although this one cannot."""
        if not (self._opened_to_read or self._refused):
            return False
        # A new one would forget what the transaction has done, by `atomic` or by hand.
        if self.in_atomic_block or not self.autocommit:
            return False
        node = self.node
        return node is not None and not node.is_replica() and self._may_write()

    def _start_transaction_under_autocommit(self) -> None:
        # Also renews the connection. After that it is known how it was opened.
        with self.cursor() as cursor:
            cursor.execute(f"BEGIN {'DEFERRED' if self._opened_to_read else self._begin()}")

    def _begin(self) -> str:
        node = self.node
        return "DEFERRED" if node is not None and node.is_replica() else self._transaction_mode

    @cached_property
    def wrap_database_errors(self) -> _ErrorWrapper:
        return _ErrorWrapper(self)

    def refusal(self, error: sqlite3.OperationalError) -> NotPrimaryError | None:
        """What that is called if it is LiteFS' refusal of a write."""
        node = self.node
        if node is None or not is_refused_write(error):
            return None
        replica = node.is_replica()
        # On a primary, locks and faulty disks are what they are.
        if not replica and not (is_readonly(error) and self._is_replicated()):
            return None
        self._refused = True
        primary = node.primary()
        who = "no primary is known here"
        if primary is not None:
            who = f"{primary} is the primary; `litepilot on-primary -- …` runs a command there"
        text = f"this node cannot write ({error}): {who}"
        kind = SplitBrainError if following.split_brain() else NotPrimaryError
        return kind(text)

    def _is_replicated(self) -> bool:
        """Both engines keep the database's position beside it."""
        return os.path.exists(f"{self.settings_dict['NAME']}-pos")


class _ErrorWrapper(DatabaseErrorWrapper):
    wrapper: DatabaseWrapper

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if isinstance(exc_value, sqlite3.OperationalError):
            refusal = self.wrapper.refusal(exc_value)
            if refusal is not None:
                self.wrapper.errors_occurred = True
                raise refusal.with_traceback(traceback) from exc_value
        super().__exit__(exc_type, exc_value, traceback)
