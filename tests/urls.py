"""URLs for the unit tests: streams through Django's views."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("v1/stream/", include("django_durable_streams.urls")),
]
