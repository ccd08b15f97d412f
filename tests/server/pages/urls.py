"""URLs of event sources, each with other options, and of streams."""

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import include, path

from django_durable_streams.models import Stream
from django_durable_streams.pages import EventView, aevent_source, event_source
from tests.server.pages import renderers


def sync_view(request: HttpRequest, path: str) -> HttpResponseBase:
    return Stream.objects.get(path=path).event_source(request, render=renderers.shout)


async def async_view(request: HttpRequest, path: str) -> HttpResponseBase:
    stream = await Stream.objects.aget(path=path)
    return await stream.aevent_source(request, render=renderers.shout)


def path_view(request: HttpRequest, path: str) -> HttpResponseBase:
    return event_source(request, path, check_permissions=False)


async def async_path_view(request: HttpRequest, path: str) -> HttpResponseBase:
    return await aevent_source(request, path, check_permissions=False)


def events(prefix: str, **options: Any) -> Any:
    return path(f"{prefix}/<path:path>", EventView.as_view(**options), name=prefix)


urlpatterns = [
    path("v1/stream/", include("django_durable_streams.urls")),
    events("plain"),
    events("template", render="pages/message.html"),
    events("html", render=renderers.counted),
    events("named", event="news", end_event="over"),
    events("typed", event=renderers.kind),
    events("filtered", render=renderers.only_even),
    events("failing", render=renderers.fails_sometimes),
    events("asynchronous", render=renderers.asynchronous),
    events("own", render=renderers.for_user, per_request=True),
    events("own-template", render="pages/own.html", per_request=True),
    events("slow", render=renderers.slow),
    events("objects", render=renderers.as_object),
    events("patches", render=renderers.patch),
    events("now", offset="now"),
    events("missing", render="pages/missing.html"),
    path("sync/<path:path>", sync_view),
    path("async/<path:path>", async_view),
    path("by-path/<path:path>", path_view, name="own-view"),
    path("async-by-path/<path:path>", async_path_view),
]
