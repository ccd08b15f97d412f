"""The project that `benchmarks.answers` measures: a chat, and beside it a plain streaming response of the same tokens.

A token is the time at which it is made, by the machine's monotonic clock, so that a reader knows how old it is.
`python -m benchmarks.answers_site` migrates its database, which the variable ANSWERS_DATABASE names.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="benchmark",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["ANSWERS_DATABASE"],
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
        }
    },
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django_durable_streams",
        "django_durable_streams.contrib.ai",
    ],
    DURABLE_STREAMS={"AI_PERMISSION_CLASS": "django_durable_streams.contrib.ai.permissions.AnonymousChats"},
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from django_durable_streams.contrib.ai.answers import Answer, AnswerContext  # noqa: E402
from django_durable_streams.contrib.ai.views import ChatRequest, VercelChat  # noqa: E402
from django_durable_streams.server.asgi import DurableStreams  # noqa: E402
from django_durable_streams.stats import process_stats  # noqa: E402


async def timed(rate: float, seconds: float) -> AsyncIterator[str]:
    """Yield tokens at a steady pace."""
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
        yield f"{time.monotonic():.6f}"


def tokens(context: AnswerContext, rate: float, seconds: float) -> AsyncIterator[str]:
    """The source of the answers."""
    return timed(rate, seconds)


class Chat(VercelChat):
    """Answers with as many tokens as the request asks for."""

    def answer(self, request: ChatRequest) -> Answer:
        return Answer("benchmarks.answers_site.tokens", request.body["script"])


async def plain(request: HttpRequest) -> StreamingHttpResponse:
    """Respond with the tokens alone: they are made for this reader, and end with its connection."""

    async def events() -> AsyncIterator[bytes]:
        async for token in timed(float(request.GET["rate"]), float(request.GET["seconds"])):
            yield b'data: {"type":"text-delta","id":"text-1","delta":"%b"}\n\n' % token.encode()
        yield b"data: [DONE]\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


async def commits(request: HttpRequest) -> HttpResponse:
    """Respond with the number of commits of this process."""
    count = str(sum(engine.commit_seconds.count for engine in process_stats().engines))
    return HttpResponse(count, headers={"Content-Length": len(count)})


urlpatterns = [*Chat.urls("api/chat"), path("plain", plain), path("commits", commits)]

application = DurableStreams(fallback=get_asgi_application())

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
