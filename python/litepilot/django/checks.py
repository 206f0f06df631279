"""System checks: what `manage.py check`, `runserver` and `migrate` say of these settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.http.request import validate_host

from .. import program
from ..reading import SettingsError, read
from ..settings import Settings
from . import conf

TAG = "litepilot"
MIDDLEWARE = (
    "litepilot.django.middleware.ReplayReadonlyWrites",
    "litepilot_middleware.django.ReplayReadonlyWrites",
)
_SQLITE = "django.db.backends.sqlite3"


@register(TAG)
def check_settings(**_: Any) -> list[CheckMessage]:
    given = conf.raw()
    if not isinstance(given, Mapping):
        return [Error("LITEFS has to be a dictionary.", id="litepilot.E001")]
    try:
        litefs = read(given)
    except SettingsError as error:
        return [Error(problem, id="litepilot.E001") for problem in error.problems]
    if not litefs.enabled:
        return []
    return [*_databases(litefs), *_middleware(), *_program(), *_health(litefs)]


def _databases(litefs: Settings) -> Iterator[CheckMessage]:
    mount = os.path.realpath(litefs.mount)
    found = False
    for alias, database in settings.DATABASES.items():
        engine, name = database.get("ENGINE"), str(database.get("NAME") or "")
        if engine not in (_SQLITE, conf.BACKEND):
            continue
        if _is_of_tests(database, name):
            found = True
            continue
        path = litefs.database if name in ("", "default") else name
        inside = os.path.dirname(os.path.realpath(path)) == mount
        found = found or (inside and os.path.basename(path) == litefs.db)
        if not inside:
            yield Warning(
                f"DATABASES[{alias!r}] is not replicated: {path} is not in {litefs.mount}.",
                hint="Databases in LITEFS['MOUNT_PATH'] are; on other nodes this one is another.",
                id="litepilot.W001",
            )
        elif engine == _SQLITE:
            yield Warning(
                f"DATABASES[{alias!r}] has Django's own SQLite backend.",
                hint=f'Write "ENGINE": {conf.BACKEND!r}.',
                id="litepilot.W002",
            )
    if not found:
        yield Error(
            f"No database in DATABASES is {litefs.database}, as LITEFS says.",
            hint='Write "NAME": "default" with our backend, or that path.',
            id="litepilot.E002",
        )


def _is_of_tests(database: Mapping[str, Any], name: str) -> bool:
    """`manage.py test` puts its own in the place of each, in memory by default."""
    named = (database.get("TEST") or {}).get("NAME")
    return ":memory:" in name or "mode=memory" in name or (bool(named) and name == str(named))


def _middleware() -> Iterator[CheckMessage]:
    places = [i for i, name in enumerate(settings.MIDDLEWARE) if name in MIDDLEWARE]
    if not places:
        yield Warning(
            "The replay middleware is missing.",
            hint=f"Write {MIDDLEWARE[0]!r} first in MIDDLEWARE: a request that turns out to write "
            "on a replica is then sent to the primary, without an error in the log.",
            id="litepilot.W003",
        )
    elif places[0] != 0:
        yield Warning(
            "The replay middleware is not the first.",
            hint="What a middleware before it writes (a session) is not seen by it.",
            id="litepilot.W004",
        )


def _program() -> Iterator[CheckMessage]:
    if program.find() is None:
        yield Warning(
            "The program litepilot is not in the PATH.",
            hint="It comes with this package's wheel; or set LITEPILOT_BIN.",
            id="litepilot.W005",
        )


def _health(litefs: Settings) -> Iterator[CheckMessage]:
    """Litepilot asks for the page by the application's address, which Django answers with 400 else."""
    unix = litefs.target.startswith("unix:")
    host = "localhost" if unix else litefs.target.rpartition(":")[0]
    app = litefs.config.get("app")
    asked = isinstance(app, Mapping) and "health" in app
    if asked and settings.ALLOWED_HOSTS and not validate_host(host, settings.ALLOWED_HOSTS):
        yield Warning(
            f"{host} is not in ALLOWED_HOSTS: the page of app.health is asked for by that name.",
            hint=f"Add {host!r}: as long as the page is a 400 the application counts as down.",
            id="litepilot.W006",
        )
