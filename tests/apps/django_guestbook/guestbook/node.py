"""Which node a request runs on, as Litepilot says."""

import os
import socket


def describe(request):
    """The node's name and role; without Litepilot in front, the host's name and `alone`."""
    return {
        "node": os.environ.get("LITEPILOT_NODE") or socket.gethostname(),
        "role": request.headers.get("Litepilot-Role", "alone"),
        "primary": request.headers.get("Litepilot-Primary"),
    }
