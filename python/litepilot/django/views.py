"""A health page: `path("healthz", litepilot.django.views.health)`, and `app.health: /healthz`."""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from ..health import describe


@never_cache
def health(_request: HttpRequest) -> JsonResponse:
    """200 if the database can be read, on whichever node; else 503."""
    connection = connections[DEFAULT_DB_ALIAS]
    said = describe(connection.settings_dict["NAME"])
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM sqlite_master")
            cursor.fetchone()
    except DatabaseError as error:
        return JsonResponse({**said, "database": str(error)}, status=503)
    return JsonResponse({**said, "database": "ok"})
