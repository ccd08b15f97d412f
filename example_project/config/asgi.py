"""The ASGI application: streams, WebSockets through Channels, and all other URLs through Django."""

import os
import sys
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

# A demo serves its own static files. A real project puts them behind nginx, a CDN or WhiteNoise.
django_application = ASGIStaticFilesHandler(get_asgi_application())

# These imports need the apps, which are loaded now.
from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from django_durable_streams.channels import StreamsConsumer  # noqa: E402
from django_durable_streams.server.asgi import DurableStreams  # noqa: E402

websockets = AuthMiddlewareStack(URLRouter([path("v1/ws/", StreamsConsumer.as_asgi())]))

application = DurableStreams(
    prefix="/v1/stream/" if settings.EXAMPLE_ENTRY_POINT == "asgi" else None,
    fallback=ProtocolTypeRouter({"http": django_application, "websocket": websockets}),
)
