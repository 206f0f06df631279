"""Where the program is that came with this package."""

from __future__ import annotations

import os
import shutil
import sysconfig


def find() -> str | None:
    """`$LITEPILOT_BIN`, what the wheel has installed, or what is in the PATH."""
    named = os.environ.get("LITEPILOT_BIN")
    if named:
        return named
    installed = os.path.join(sysconfig.get_path("scripts"), "litepilot")
    if os.access(installed, os.X_OK):
        return installed
    return shutil.which("litepilot")
