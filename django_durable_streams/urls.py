"""URLs of the streams: `path("v1/stream/", include("django_durable_streams.urls"))`."""

from django.urls import path

from .server.views import stream_view

app_name = "durable_streams"

urlpatterns = [
    path("", stream_view, name="root"),
    path("<path:stream_path>", stream_view, name="stream"),
]
