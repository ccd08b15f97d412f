"""A Django project in one file, as `benchmarks.alternatives` serves it: django-eventstream, or groups of Channels.

`ALTERNATIVE` says which: eventstream, eventstream-storage, eventstream-redis, channels or channels-redis. Its settings
follow the packages' documentation. `POST /publish` sends the body to all readers, and answers when the package
says that it was sent. The environment of this process has neither this app nor its packages.
"""

import os
from typing import Any

import django
from django.conf import settings

ALTERNATIVE = os.environ["ALTERNATIVE"]
USES_CHANNELS = ALTERNATIVE.startswith("channels")
ROOM = "room"

options: dict[str, Any] = {}
if ALTERNATIVE == "eventstream-storage":
    options["EVENTSTREAM_STORAGE_CLASS"] = "django_eventstream.storage.DjangoModelStorage"
if ALTERNATIVE == "eventstream-redis":
    options["EVENTSTREAM_REDIS"] = {"host": "127.0.0.1", "port": int(os.environ["REDIS_PORT"]), "db": 0}
if ALTERNATIVE == "channels":
    options["CHANNEL_LAYERS"] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if ALTERNATIVE == "channels-redis":
    hosts = [("127.0.0.1", int(os.environ["REDIS_PORT"]))]
    options["CHANNEL_LAYERS"] = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": hosts}}
    }

settings.configure(
    SECRET_KEY="not a secret: this project is only measured",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["channels" if USES_CHANNELS else "django_eventstream"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE_FILE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    **options,
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402 - needs the settings
from django.core.management import call_command  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402

call_command("migrate", verbosity=0)
application: Any = get_asgi_application()

if USES_CHANNELS:
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.layers import get_channel_layer
    from channels.routing import ProtocolTypeRouter, URLRouter

    class Reader(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
        """Sends each message of the room."""

        async def connect(self) -> None:
            await self.channel_layer.group_add(ROOM, self.channel_name)
            await self.accept()

        async def disconnect(self, code: int) -> None:
            await self.channel_layer.group_discard(ROOM, self.channel_name)

        async def room_message(self, event: dict[str, str]) -> None:
            await self.send(event["text"])

    async def publish(request: HttpRequest) -> HttpResponse:
        text = request.body.decode()
        await get_channel_layer().group_send(ROOM, {"type": "room.message", "text": text})
        return HttpResponse(status=204)

    application = ProtocolTypeRouter(
        {"http": application, "websocket": URLRouter([path("ws/", Reader.as_asgi())])},
    )
    urlpatterns: list[Any] = [path("publish", publish)]
else:
    from django_eventstream import send_event

    def publish_event(request: HttpRequest) -> HttpResponse:
        send_event(ROOM, "message", {"text": request.body.decode()})
        return HttpResponse(status=204)

    urlpatterns = [
        path("events/", include("django_eventstream.urls"), {"channels": [ROOM]}),
        path("publish", publish_event),
    ]
