"""A subscription of another server, by HTTP (specification, sections 6 and 7). Needs the extra `webhooks`.

The wake stream is followed by long-poll. A read returns a page, and the server tells only the offset after it. So only
whole pages can be acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from ...protocol import content, text, values
from ...protocol.content import DEFAULT_CONTENT_TYPE
from ...protocol.errors import DurableStreamsError, ServiceUnavailable, StreamGone, StreamNotFound
from ...protocol.paths import CONTROL_ROOT
from ...protocol.structs import examine
from ...protocol.subscriptions import SubscriptionConfig, SubscriptionError
from .base import ClaimedStream, ClaimedWake, WakeMessage, is_event_of
from .http import Headers, HttpClient, Reply

LONG_POLL_SECONDS = 90.0
"""Time for a long-poll. Servers answer earlier, as a rule after 30 seconds."""

LARGE_BYTES = 64 * 1024
"""Pages from this size on are decoded in a thread, so that they delay nothing else in the event loop."""

T = TypeVar("T")


class RemoteServer:
    """A subscription of another server.

    Args:
        name: id of the subscription.
        url: the root of the streams.
        headers: headers of each request. The token of a wake takes the place of Authorization.
    """

    def __init__(self, name: str, url: str, headers: Headers) -> None:
        self.is_stopping = False
        self._name = name
        self._http = HttpClient(url, headers)
        self._target = f"{CONTROL_ROOT}subscriptions/{quote(name, safe='')}"

    async def ensure(self, config: SubscriptionConfig) -> bool:
        """Create the subscription and its wake stream, where they do not exist. Return whether it is new."""
        try:
            await self._http.request("PUT", quote(config.wake_stream), content=[])
        except SubscriptionError as error:
            if error.status != 409:  # it may have another content type
                raise
        body: dict[str, Any] = {"type": config.kind, "wake_stream": config.wake_stream, "lease_ttl_ms": config.lease_ms}
        body |= {"pattern": config.pattern} if config.pattern else {}
        body |= {"streams": config.streams} if config.streams else {}
        body |= {"description": config.description} if config.description else {}
        return (await self._http.request("PUT", self._target, content=body)).status == 201

    async def wake_stream(self) -> str:
        """Return the path of the wake stream."""
        reply = await self._http.request("GET", self._target)
        return _decoded(reply, _Subscription).wake_stream or ""

    async def wake_events(self, path: str) -> AsyncGenerator[None, None]:
        """Yield once when the wake stream is watched, and then for each page with an event of the subscription."""
        reply = await self._http.request("GET", quote(path), query={"offset": "now"})
        yield
        query = {"live": "long-poll"}
        while "stream-closed" not in reply.headers:
            query |= {"offset": _next_offset(reply)}
            if (cursor := reply.headers.get("stream-cursor")) is not None:
                query |= {"cursor": cursor}
            try:
                reply = await self._http.request("GET", quote(path), query=query, seconds=LONG_POLL_SECONDS)
            except ServiceUnavailable as error:
                if not isinstance(error.__cause__, TimeoutError):
                    raise
                continue  # this server holds a long-poll for longer
            if any(is_event_of(self._name, message) for message in await _messages(reply)):
                yield

    async def claim(self, worker: str) -> ClaimedWake:
        """Claim the subscription."""
        reply = await self._http.request("POST", f"{self._target}/claim", content={"worker": worker})
        return _decoded(reply, ClaimedWake)

    async def ack(self, wake: ClaimedWake, offsets: Mapping[str, str], *, done: bool) -> None:
        """Acknowledge offsets by path, and extend the lease or, with `done`, end it."""
        acks = [{"stream": path, "offset": offset} for path, offset in offsets.items()]
        body = {"wake_id": wake.wake_id, "generation": wake.generation, "acks": acks, "done": done}
        await self._http.request("POST", f"{self._target}/ack", content=body, token=wake.token)

    async def release(self, wake: ClaimedWake) -> None:
        """Give the lease back."""
        body = {"wake_id": wake.wake_id, "generation": wake.generation}
        await self._http.request("POST", f"{self._target}/release", content=body, token=wake.token)

    async def messages(self, stream: ClaimedStream, offset: str) -> AsyncGenerator[WakeMessage, None]:
        """Yield the messages of a stream after an offset, at least up to the tail of the claim. None if it is gone.

        A message of a stream that is not in JSON mode is a page: the server does not tell where its appends end.
        """
        held = b""
        while True:
            page = await self._page(stream.path, offset)
            if page is None:
                return
            next_offset = _next_offset(page)
            # Text is handed over, and can be acknowledged, up to a page that does not end inside a character.
            if content.holds_text(_kind(page)):
                data, held = held + page.body, b""
                if text.split(data, final="stream-closed" in page.headers)[1]:
                    held, messages = data, []
                else:
                    messages = [text.decode(data)] if data else []
            else:
                messages = await _messages(page)
            for number, message in enumerate(messages, 1):
                yield WakeMessage(stream.path, message, next_offset if number == len(messages) else None)
            has_ended = "stream-up-to-date" in page.headers or "stream-closed" in page.headers
            if has_ended or next_offset == offset or (next_offset >= stream.tail_offset and not held):
                return
            offset = next_offset

    async def _page(self, path: str, offset: str) -> Reply | None:
        """Return the page from an offset, or from the beginning if the offset is gone. None: the stream is gone."""
        for start in dict.fromkeys((offset, "-1")):
            try:
                return await self._http.request("GET", quote(path), query={"offset": start})
            except StreamGone:
                continue
            except StreamNotFound:
                return None
        return None

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()


class _Subscription(msgspec.Struct):
    wake_stream: str | None = None


def _decoded(reply: Reply, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except msgspec.DecodeError as error:
        raise DurableStreamsError(f"The answer is not one of the protocol, so the URL may be wrong: {error}") from error


def _next_offset(reply: Reply) -> str:
    offset = reply.headers.get("stream-next-offset")
    if offset is None:
        raise DurableStreamsError("The answer has no Stream-Next-Offset, so the URL may be wrong.")
    return offset


def _kind(reply: Reply) -> str:
    return reply.headers.get("content-type", DEFAULT_CONTENT_TYPE)


async def _messages(reply: Reply) -> list[Any]:
    """Return the messages of a page: its values in JSON mode, otherwise the page as one value."""
    if not reply.body:
        return []
    kind = _kind(reply)
    if len(reply.body) < LARGE_BYTES:
        value = values.decode(kind, reply.body)
    else:
        value = await asyncio.to_thread(values.decode, kind, reply.body)
    if not content.is_json(kind):
        return [value]
    return value if isinstance(value, list) else [value]


examine(globals())
