"""`litepilot.wsgi`, by its former name."""

from litepilot.wsgi import ReplayReadonlyWrites

__all__ = ["ReplayReadonlyWrites"]
