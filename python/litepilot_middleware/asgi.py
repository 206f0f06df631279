"""`litepilot.asgi`, by its former name."""

from litepilot.asgi import ReplayReadonlyWrites

__all__ = ["ReplayReadonlyWrites"]
