"""`litepilot.django.middleware`, by its former name."""

from litepilot.django.middleware import ReplayReadonlyWrites

__all__ = ["ReplayReadonlyWrites"]
