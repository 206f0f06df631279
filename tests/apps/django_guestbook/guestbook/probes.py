"""Pages that show a test what became of a request, or of a response, on its way."""

import asyncio
import hashlib
import os

from django.db.models import F, Sum
from django.http import JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods

from guestbook.models import SeenRequest

PIECE = 64 * 1024


@csrf_exempt
@require_http_methods(["GET", "POST"])
def upload(request):
    """GET is a page with a form; POST takes its file, or a bare body, and says what arrived."""
    if request.method == "GET":
        return render(request, "guestbook/upload.html")
    if request.content_type == "multipart/form-data":
        if "file" not in request.FILES:
            return JsonResponse({"error": "the form has no field 'file'"}, status=400)
        pieces = request.FILES["file"].chunks(PIECE)
    else:
        pieces = iter(lambda: request.read(PIECE), b"")
    digest, count = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        count += len(piece)
    return JsonResponse(
        {
            "bytes": count,
            "sha256": digest.hexdigest(),
            "content_length": request.headers.get("Content-Length"),
            "transfer_encoding": request.headers.get("Transfer-Encoding"),
        }
    )


@require_GET
async def stream(request):
    """Server-sent events: `events=N` of them, one each `interval=S` seconds. Meant for ASGI."""
    events = int(request.GET.get("events", "5"))
    interval = float(request.GET.get("interval", "0.1"))

    async def lines():
        for number in range(1, events + 1):
            yield f"id: {number}\ndata: event {number}\n\n"
            await asyncio.sleep(interval)

    return StreamingHttpResponse(
        lines(), content_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


@csrf_exempt
@require_http_methods(["GET", "POST"])
def count(request):
    """POST counts its `X-Request-Id` in the database; GET tells the counts.

    A request that reached an application twice shows as an id that was seen twice.
    """
    if request.method == "POST":
        request_id = request.headers.get("X-Request-Id", "")
        SeenRequest.objects.update_or_create(
            request_id=request_id, defaults={"seen": F("seen") + 1}, create_defaults={"seen": 1}
        )
    seen = dict(SeenRequest.objects.values_list("request_id", "seen"))
    total = SeenRequest.objects.aggregate(total=Sum("seen", default=0))["total"]
    return JsonResponse({"count": total, "requests": {key: seen[key] for key in seen if key}})


@require_GET
def echo_headers(request):
    """The request's headers, and what Django makes of them."""
    return JsonResponse(
        {
            "headers": [list(header) for header in request.headers.items()],
            "url": request.build_absolute_uri(),
            "secure": request.is_secure(),
            "remote": request.META.get("REMOTE_ADDR"),
        }
    )


@require_GET
def pid(request):
    """The worker that answered, and its master."""
    return JsonResponse({"pid": os.getpid(), "master": os.getppid()})
