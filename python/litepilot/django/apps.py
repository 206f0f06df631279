"""What Django does with `"litepilot.django"` in INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig


class LitepilotConfig(AppConfig):
    name = "litepilot.django"
    label = "litepilot"
    verbose_name = "Litepilot"

    def ready(self) -> None:
        # Both register themselves.
        from . import checks, following  # noqa: F401
