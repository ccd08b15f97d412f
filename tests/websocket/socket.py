"""A client of a WebSocket in the event loop of its application, without a server."""

import asyncio
import json
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from django_durable_streams.channels import StreamsConsumer
from django_durable_streams.protocol import websocket
from django_durable_streams.server.lifespan import Message, Scope

SECONDS = 10.0
"""Within this time the next frame has to come."""

Frame = dict[str, Any]


class Closed(Exception):
    """The server has closed the socket, or refused it."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"closed with {code}: {reason}")
        self.code = code
        self.reason = reason


class Socket:
    """A socket. Use it as a context manager, which opens it and leaves.

    application: default: the consumer alone.
    headers: of the handshake, besides Host.
    answers_pings: whether it does what a client has to do. Pings are not among the frames then.
    scope: further keys, as middleware sets them.
    """

    def __init__(
        self,
        application: Any = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        query: str = "",
        answers_pings: bool = True,
        scope: dict[str, Any] | None = None,
    ) -> None:
        self.frames: list[Frame] = []
        self.binary: list[tuple[Frame, bytes]] = []
        self.subprotocol: str | None = None
        self.sent_bytes = 0
        self.is_paused = asyncio.Event()
        self.is_paused.set()
        self._application = application or StreamsConsumer.as_asgi()
        self._answers_pings = answers_pings
        self._to_server: asyncio.Queue[Message] = asyncio.Queue()
        self._from_server: asyncio.Queue[Message] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None
        self.scope: Scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/v1/ws/",
            "raw_path": b"/v1/ws/",
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"testserver"), *((name.encode(), value.encode()) for name, value in headers)],
            "client": ("127.0.0.1", 50_000),
            "server": ("testserver", 80),
            "subprotocols": [],
            **(scope or {}),
        }

    async def open(self) -> Self:
        """Open the socket, and take the welcome. Raises Closed if it is refused."""
        self._to_server.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(self._run())
        message = await self._message()
        assert message["type"] == "websocket.accept"
        self.subprotocol = message.get("subprotocol")
        return self

    async def __aenter__(self) -> Self:
        await self.open()
        assert (await self.next())["type"] == "welcome"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()
        assert self.task is not None
        async with asyncio.timeout(SECONDS):
            await self.task

    def leave(self) -> None:
        """Leave without a word."""
        self._to_server.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def send(self, kind: str, **fields: Any) -> None:
        """Send a frame. A field of None is left out."""
        shown = {name: value for name, value in fields.items() if value is not None}
        self.send_text(json.dumps({"type": kind, **shown}))

    def send_text(self, text: str) -> None:
        """Send a text frame, whatever is in it."""
        self._to_server.put_nowait({"type": "websocket.receive", "text": text})

    def send_bytes(self, data: bytes) -> None:
        """Send a binary frame, whatever is in it."""
        self._to_server.put_nowait({"type": "websocket.receive", "bytes": data})

    async def next(self) -> Frame:
        """The next frame. Raises Closed.

        A binary frame has its data as the field `payload`, and a frame with JSON its own text as the field `text`.
        """
        while True:
            message = await self._message()
            if message.get("bytes") is not None:
                header, payload = websocket.split_binary(message["bytes"])
                return {**json.loads(header), "payload": payload}
            frame: Frame = json.loads(message["text"], parse_int=_integer)
            if isinstance(frame.get("data"), list):
                frame["text"] = message["text"]
            if frame["type"] != "ping" or not self._answers_pings:
                return frame
            self.send("pong", n=frame["n"])

    async def take(self, *kinds: str) -> list[Frame]:
        """The next frames, which have to be of these types."""
        frames = [await self.next() for _ in kinds]
        assert [frame["type"] for frame in frames] == list(kinds), frames
        return frames

    async def subscribe(self, path: str, offset: str = "-1", **fields: Any) -> Frame:
        """Subscribe, and return the frame that answers."""
        self.send("subscribe", path=path, offset=offset, **fields)
        return await self.next()

    async def until(self, kind: str) -> list[Frame]:
        """The next frames up to one of this type."""
        frames = [await self.next()]
        while frames[-1]["type"] != kind:
            frames.append(await self.next())
        return frames

    async def closing(self) -> Closed:
        """Wait until the server closes the socket, and return why."""
        try:
            while True:
                await self.next()
        except Closed as closed:
            return closed

    def has_more(self) -> bool:
        """Whether a frame waits that was not taken."""
        return not self._from_server.empty()

    async def _message(self) -> Message:
        async with asyncio.timeout(SECONDS):
            message = await self._from_server.get()
        if message["type"] == "websocket.close":
            raise Closed(message.get("code"), message.get("reason", ""))
        if message["type"] == "end":
            assert self.task is not None
            await self.task
            raise Closed(None, "the application has ended")
        return message

    async def _run(self) -> None:
        try:
            await self._application(self.scope, self._to_server.get, self._send)
        finally:
            self._from_server.put_nowait({"type": "end"})

    async def _send(self, message: Message) -> None:
        await self.is_paused.wait()
        self.sent_bytes += len(message.get("text") or message.get("bytes") or "")
        self._from_server.put_nowait(message)


def _integer(digits: str) -> int | str:
    """A number as Python takes it: one with thousands of digits stays a text."""
    return int(digits) if len(digits) < 4000 else digits
