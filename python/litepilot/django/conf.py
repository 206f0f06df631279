"""`LITEFS` in the project's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ..reading import SettingsError, read
from ..settings import Settings

BACKEND = "litepilot.django.backend"


def raw() -> Any:
    """As it stands there; an empty dictionary if it does not."""
    return getattr(settings, "LITEFS", {})


def load() -> Settings:
    """As `Settings`. Raises ImproperlyConfigured."""
    given = raw()
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("LITEFS has to be a dictionary")
    try:
        return read(given)
    except SettingsError as error:
        raise ImproperlyConfigured("\n".join(error.problems)) from error


def is_enabled() -> bool:
    """Whether there is a Litepilot where this runs: `"ENABLED": False` for development without."""
    given = raw()
    return not isinstance(given, Mapping) or bool(given.get("ENABLED", True))
