"""The URLs of the example project, and event sources."""

from typing import Any

from config.urls import urlpatterns as example_patterns
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils.html import format_html

from django_durable_streams.models import Stream
from django_durable_streams.pages import EventView


def item(message: Any) -> str:
    return format_html("<li>{}\n</li>", message)


def sync_view(request: HttpRequest, path: str) -> HttpResponseBase:
    return Stream.objects.get(path=path).event_source(request, render=item)


urlpatterns = [
    path("events/<path:path>", EventView.as_view(render=item)),
    path("view/<path:path>", sync_view),
    path("bytes/<path:path>", EventView.as_view()),
    *example_patterns,
]
