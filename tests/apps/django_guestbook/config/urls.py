"""The same addresses as the Flask guestbook's where both have the page."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/", include("django.contrib.auth.urls")),
    # Left to nginx in earnest; here it keeps the admin usable without one.
    path("static/<path:path>", serve, {"insecure": True}),
    path("", include("guestbook.urls")),
]
