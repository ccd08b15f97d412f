"""Ways to mount the streams: inside Channels' routing, below a root path, and alone."""

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from config.asgi import application as example_application
from django.core.asgi import get_asgi_application
from django.urls import path, re_path

from django_durable_streams.server.asgi import Application, DurableStreams, Receive, Scope, Send

ROOT = "/api"

django_routes = [re_path("", get_asgi_application())]  # type: ignore[arg-type]

routed = ProtocolTypeRouter(
    {
        "http": AuthMiddlewareStack(
            URLRouter([path("v1/stream/<path:stream_path>", DurableStreams(prefix=None)), *django_routes])  # type: ignore[arg-type]
        )
    }
)

alone = DurableStreams()


def mounted(application: Application) -> Application:
    """Mount an application below the root path, as Starlette and others do: the path stays whole."""

    async def mount(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith(ROOT + "/")
            scope = {**scope, "root_path": scope.get("root_path", "") + ROOT}
        await application(scope, receive, send)

    return mount


below_root = mounted(example_application)
