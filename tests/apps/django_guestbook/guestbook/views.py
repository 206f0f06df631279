"""The guestbook as its users know it: a page with a form, logins, a JSON API."""

import json

from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from guestbook import node
from guestbook.forms import EntryForm
from guestbook.models import Entry

SHOWN = 100


def save_entry(request, form):
    """Stores the entry of a form that is valid."""
    form.instance.author = request.user.get_username() or "anonymous"
    return form.save()


@require_GET
def index(request):
    return page(request, EntryForm())


@require_POST
def sign(request):
    form = EntryForm(request.POST)
    if not form.is_valid():
        return page(request, form, status=400)
    save_entry(request, form)
    return HttpResponseRedirect("/", status=303)


def page(request, form, status=200):
    context = {"entries": Entry.objects.all()[:SHOWN], "form": form, "node": node.describe(request)}
    return render(request, "guestbook/index.html", context, status=status)


@require_GET
def whoami(request):
    return JsonResponse({"name": request.user.get_username() or None})


@require_GET
def visits(request):
    """Writes its session on GET: on a replica only the middleware's replay makes that work."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"], **node.describe(request)})


# A JSON API for programs has no form to carry a CSRF token.
@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def entries(request):
    if request.method != "POST":
        return JsonResponse([entry.as_json() for entry in Entry.objects.all()[:SHOWN]], safe=False)
    try:
        body = json.loads(request.body)
    except ValueError:
        return HttpResponse('expected JSON {"text": "…"}\n', status=400)
    form = EntryForm(body if isinstance(body, dict) else {})
    if not form.is_valid():
        return JsonResponse({"error": form.errors}, status=400)
    return JsonResponse(save_entry(request, form).as_json(), status=201)


@require_GET
def show_node(request):
    return JsonResponse(node.describe(request))
