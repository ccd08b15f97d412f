"""Run in a project whose database is not ready: start, send requests, and tell what they were answered with."""

import asyncio
import json
import logging
import time
from typing import Any

import django

BODY = b"x" * 100_000


async def start() -> list[str]:
    """Start as a server does, and return what the application has answered."""
    from django_durable_streams.server.asgi import DurableStreams

    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    messages.put_nowait({"type": "lifespan.startup"})
    answers: list[str] = []
    answered = asyncio.Event()

    async def send(message: Any) -> None:
        answers.append(message["type"])
        answered.set()

    lifespan = asyncio.ensure_future(DurableStreams()({"type": "lifespan"}, messages.get, send))
    await answered.wait()
    lifespan.cancel()  # the server goes on
    return answers


def main() -> dict[str, Any]:
    """Send requests by every entry point, several of each."""
    from django.http import HttpRequest

    from django_durable_streams.health import readyz
    from django_durable_streams.testing import stop_engines
    from tests.projects.callers import ENTRY_POINTS

    started = asyncio.run(start())
    logging.getLogger("tests").warning("requests follow")
    answers = []
    began = time.monotonic()
    for make in ENTRY_POINTS.values():
        call = make()
        for number in range(3):
            answer = call("PUT", f"a/{number}", BODY, content_type="text/plain")
            answers.append((answer.status, answer.body.decode()))
            answer = call("GET", f"a/{number}")
            answers.append((answer.status, answer.body.decode()))
    seconds = time.monotonic() - began
    health = json.loads(readyz(HttpRequest()).content)
    stop_engines()
    return {"started": started, "answers": answers, "seconds": seconds, "health": health}


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main()))
