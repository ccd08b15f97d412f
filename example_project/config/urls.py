from django.contrib import admin
from django.urls import include, path

from django_durable_streams.health import healthz, readyz

urlpatterns = [
    path("admin/", admin.site.urls),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz),
    path("v1/stream/", include("django_durable_streams.urls")),
    path("wire/", include("demo.urls")),
    path("board/", include("board.urls")),
    path("", include("chat.urls")),
]
