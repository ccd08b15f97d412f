"""AI answers: the processor time of one portion for one reader: `python -m benchmarks.answer_deliveries`

Between a page of the chat's stream and the `send` of the server, with two tokens in each portion. Everything runs in
this process, without a server and a database, so a busy machine changes the figure little. `--plain` has a queue for
each reader instead.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="benchmark",
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django_durable_streams",
        "django_durable_streams.contrib.ai",
    ],
)
django.setup()

from django.core.handlers.asgi import ASGIHandler, ASGIRequest  # noqa: E402
from django.http import HttpResponseBase, StreamingHttpResponse  # noqa: E402

from django_durable_streams.api.tail import Page  # noqa: E402
from django_durable_streams.contrib.ai.dialects.vercel import DONE, VercelTranslator  # noqa: E402
from django_durable_streams.contrib.ai.events import Finish, Text, encode  # noqa: E402
from django_durable_streams.contrib.ai.feeds import FeedSource  # noqa: E402
from django_durable_streams.contrib.ai.views.base import chunk_events, event_stream  # noqa: E402
from django_durable_streams.engine.live_reader_limit import LiveReaderSlot  # noqa: E402

TOKEN = Text("1234567.123456")


class Readers:
    """Counts the portions that all readers have taken, and lets the writer wait for the last of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._left = 0
        self._taken = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        """Take an ASGI message, as a server with a fast client does."""
        if b"text-delta" in message.get("body", b""):
            self._left -= 1
            if not self._left:
                self._taken.set()

    def expect(self) -> None:
        """Wait for one more portion for each reader from now on."""
        self._left = self.count
        self._taken.clear()

    async def all_taken(self) -> None:
        """Wait until each reader has the portion."""
        await self._taken.wait()


class AnswerStream:
    """The stream of a chat: a page for each portion, as soon as all readers have the last one."""

    def __init__(self, readers: Readers, portions: int) -> None:
        self.begun = asyncio.Event()
        self._readers = readers
        self._portions = portions

    async def atail(self, offset: str, *, timeout: float | None = None) -> AsyncIterator[Page]:
        if timeout == 0:
            return
        await self.begun.wait()
        for number in range(self._portions):
            self._readers.expect()
            yield Page([encode(TOKEN), encode(TOKEN)], str(number), up_to_date=True, closed=False)
            await self._readers.all_taken()
        yield Page([encode(Finish("r"))], "end", up_to_date=True, closed=True)


async def until_none(queue: asyncio.Queue[bytes | None]) -> AsyncGenerator[bytes, None]:
    while (portion := await queue.get()) is not None:
        yield portion


async def answers(readers: Readers, portions: int) -> float:
    """Return the processor time of all portions of an answer for all readers, in seconds."""
    stream = AnswerStream(readers, portions)
    source = FeedSource(cast("Any", stream), "-1", "r", VercelTranslator)

    def response() -> HttpResponseBase:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        slot = LiveReaderSlot(set(), object())
        return event_stream(ASGIRequest(scope, io.BytesIO()), chunk_events("key", source, DONE), slot)

    sending = await _begin(readers, [response() for _ in range(readers.count)])
    began = time.process_time()
    stream.begun.set()
    await asyncio.gather(*sending)
    return time.process_time() - began


async def plain(readers: Readers, portions: int) -> float:
    """Return the same for plain streaming responses with a queue for each reader."""
    queues: list[asyncio.Queue[bytes | None]] = [asyncio.Queue() for _ in range(readers.count)]
    sending = await _begin(readers, [StreamingHttpResponse(until_none(queue)) for queue in queues])
    began = time.process_time()
    for _ in range(portions):
        readers.expect()
        for queue in queues:
            queue.put_nowait(b'data: {"type":"text-delta","id":"text-1","delta":"1234567.123456"}\n\n' * 2)
        await readers.all_taken()
    for queue in queues:
        queue.put_nowait(None)
    await asyncio.gather(*sending)
    return time.process_time() - began


async def _begin(readers: Readers, responses: list[HttpResponseBase]) -> list[asyncio.Task[None]]:
    handler = ASGIHandler.__new__(ASGIHandler)  # without the project's middleware
    tasks = [asyncio.create_task(handler.send_response(response, readers.send)) for response in responses]
    for _ in range(10):  # until all wait
        await asyncio.sleep(0)
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer_deliveries", description=__doc__)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--portions", type=int, default=500)
    parser.add_argument("--plain", action="store_true", help="plain streaming responses with a queue for each reader")
    options = parser.parse_args()

    async def measure() -> float:
        return await (plain if options.plain else answers)(Readers(options.readers), options.portions)

    print(f"{asyncio.run(measure()) / (options.readers * options.portions) * 1e6:.1f} us of processor for a portion")


if __name__ == "__main__":
    main()
