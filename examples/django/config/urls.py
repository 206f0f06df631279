from django.contrib import admin
from django.urls import path
from litepilot.django.views import health
from notes import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("healthz", health),
    path("", views.notes),
]
