"""Which node this request runs on, as Litepilot says."""

import os
import socket

from flask import request


def describe():
    """The node's name and role; without Litepilot in front, the host's name and `alone`."""
    return {
        "node": os.environ.get("LITEPILOT_NODE") or socket.gethostname(),
        "role": request.headers.get("Litepilot-Role", "alone"),
        "primary": request.headers.get("Litepilot-Primary"),
    }


def on_replica():
    return request.headers.get("Litepilot-Role") == "replica"
