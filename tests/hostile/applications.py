"""Applications with a window: streams inside Channels' routing, and Django alone."""

from channels.routing import ProtocolTypeRouter, URLRouter
from config.asgi import django_application
from django.urls import path, re_path

from django_durable_streams.server.asgi import DurableStreams, Receive, Scope, Send
from tests.entry_points.probe_asgi import PROBE_PATH, answer

routed = ProtocolTypeRouter(
    {
        "http": URLRouter(
            [
                path("v1/stream/<path:stream_path>", DurableStreams(prefix=None)),  # type: ignore[arg-type]
                path(PROBE_PATH.removeprefix("/"), answer),  # type: ignore[arg-type]
                re_path("", django_application),
            ]
        )
    }
)


async def django(scope: Scope, receive: Receive, send: Send) -> None:
    """Django's own handler, which is given the server's receive and send."""
    if scope["type"] == "http" and scope["path"] == PROBE_PATH:
        await answer(scope, receive, send)
    else:
        await django_application(scope, receive, send)
