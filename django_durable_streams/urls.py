"""URLs of the streams: `path("v1/stream/", include("django_durable_streams.urls"))`."""

from django.urls import path, re_path

from .server.views import stream_view

app_name = "durable_streams"

urlpatterns = [
    path("", stream_view, name="root"),
    # Every path, with line feeds too, unlike `<path:stream_path>`: the view refuses it as all entry points do.
    re_path(r"^(?P<stream_path>[\s\S]+)\Z", stream_view, name="stream"),
]
