"""`manage.py migrate`, on a node that may be a replica.

There nothing can be applied. So where nothing is left to apply it does what it always does, and
otherwise waits until the primary's migrations have arrived, or this node is the primary.
"""

from __future__ import annotations

import os
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from ...backend.base import DatabaseWrapper
from ...errors import NotPrimaryError

# As `litepilot on-primary` waits.
_WAIT = 60.0
# Nothing tells when a migration has arrived here.
_PAUSE = 0.25


class Command(migrate.Command):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--wait",
            type=float,
            default=_WAIT,
            metavar="SECONDS",
            help="How long to wait on a replica for the primary's migrations, or to become the primary.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        wait = options.pop("wait")
        connection = connections[options["database"]]
        looks_only = options.get("plan") or options.get("check_unapplied")
        if not isinstance(connection, DatabaseWrapper) or connection.node is None or looks_only:
            super().handle(*args, **options)
            return
        deadline = time.monotonic() + wait
        while not self._is_done(connection, args, options):
            if time.monotonic() >= deadline:
                raise CommandError(_where(connection))
            # What arrives is seen by a new connection in any case.
            connection.close()
            time.sleep(_PAUSE)

    def _is_done(self, connection: DatabaseWrapper, args: Any, options: dict[str, Any]) -> bool:
        node = connection.node
        if node is not None and node.is_replica() and not _is_applied(connection, options):
            return False
        try:
            super().handle(*args, **options)
        except NotPrimaryError:
            # It ceased to be the primary, or is not yet. Of an atomic migration nothing was applied.
            return False
        return True


def _is_applied(connection: DatabaseWrapper, options: dict[str, Any]) -> bool:
    """Whether all is applied here. What is asked for by name counts as not applied."""
    if options.get("app_label") or not os.path.exists(connection.settings_dict["NAME"]):
        return False
    executor = MigrationExecutor(connection)
    targets = executor.loader.graph.leaf_nodes()
    return not executor.migration_plan(targets)


def _where(connection: DatabaseWrapper) -> str:
    node = connection.node
    primary = node.primary() if node is not None else None
    if primary is None:
        return "nothing can be migrated here now: no primary is known (`litepilot status` says why)"
    return (
        f"{primary} is the primary, and only there can it be migrated: run this there, or on every "
        "node as `litepilot on-primary -- python manage.py migrate`, which runs it there only"
    )
