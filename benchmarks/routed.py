"""The example project as Channels' documentation has it: streams are a route, and Django serves all others."""

from channels.routing import ProtocolTypeRouter, URLRouter
from config.asgi import django_application
from django.urls import path, re_path

from django_durable_streams.server.asgi import DurableStreams

application = ProtocolTypeRouter(
    {
        "http": URLRouter(
            [
                path("v1/stream/<path:stream_path>", DurableStreams(prefix=None)),  # type: ignore[arg-type]
                re_path("", django_application),  # type: ignore[arg-type]
            ]
        )
    }
)
