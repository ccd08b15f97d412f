"""The example project with event sources, as `benchmarks.pages` serves it. It counts rendered messages in a file."""

import os
from typing import Any

from config.asgi import application as application  # sets Django up
from config.urls import urlpatterns as example_patterns
from django.conf import settings
from django.http import HttpRequest
from django.template import Context, Template
from django.urls import path

from django_durable_streams.pages import EventView, StreamAt

_TEMPLATE = Template('<li id="m-{{ stream.next_offset }}"><b>{{ message.author }}</b> {{ message.text }}</li>')
_rendered = os.open(os.environ["RENDERED_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def item(message: Any, stream: StreamAt) -> str:
    os.write(_rendered, b".")
    return _TEMPLATE.render(Context({"message": message, "stream": stream}))


def own_item(message: Any, stream: StreamAt, request: HttpRequest) -> str:
    return item(message, stream)


urlpatterns = [
    path("events/<path:path>", EventView.as_view(render=item)),
    path("own/<path:path>", EventView.as_view(render=own_item, per_request=True)),
    *example_patterns,
]
settings.ROOT_URLCONF = __name__
