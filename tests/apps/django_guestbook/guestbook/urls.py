"""Addresses of the guestbook and of its probes."""

from django.urls import path

from guestbook import probes, views

urlpatterns = [
    path("", views.index, name="index"),
    path("sign", views.sign, name="sign"),
    path("whoami", views.whoami),
    path("visits/", views.visits),
    path("api/entries", views.entries),
    path("api/node", views.show_node),
    path("api/count", probes.count),
    path("upload", probes.upload),
    path("stream", probes.stream),
    path("echo-headers", probes.echo_headers),
    path("pid", probes.pid),
]
