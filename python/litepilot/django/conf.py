"""`LITEFS` in the project's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .. import reading
from ..settings import Settings

_T = TypeVar("_T")

BACKEND = "litepilot.django.backend"


def raw() -> Any:
    """As it stands there; an empty dictionary if it does not."""
    return getattr(settings, "LITEFS", {})


def load() -> Settings:
    """As `Settings`. Raises ImproperlyConfigured."""
    return _read_by(reading.read)


def database() -> str:
    """The path of the database. Raises ImproperlyConfigured."""
    return _read_by(reading.database)


def _read_by(reader: Callable[[Mapping[str, Any]], _T]) -> _T:
    given = raw()
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("LITEFS has to be a dictionary")
    try:
        return reader(given)
    except reading.SettingsError as error:
        raise ImproperlyConfigured("\n".join(error.problems)) from error


def is_enabled() -> bool:
    """Whether there is a Litepilot where this runs: `"ENABLED": False` for development without."""
    given = raw()
    return not isinstance(given, Mapping) or bool(given.get("ENABLED", True))
