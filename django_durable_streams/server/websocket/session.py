"""One socket: turns its client's frames into subscriptions and requests.

Frames are handled as they arrive, and never wait in a server's queue. The invariant: what a client sends is bounded.
Its unanswered requests are counted, and their bodies count towards MAX_BODY_MEMORY. Appends to one stream are applied
in the order of their frames.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from functools import partial
from typing import Any

from ...access.guard import current_guard
from ...conf import config
from ...engine import engine_for
from ...protocol import offsets, paths, websocket
from ...protocol.errors import DurableStreamsError, InvalidFrame, PayloadTooLarge, TooManyRequests
from ...protocol.websocket import Append, Ping, Pong, Subscribe, Unsubscribe
from ...runtime import tracing
from ...runtime.shutdown import add_live_reader, remove_live_reader
from .. import request_numbers
from ..bodies import memory
from ..dispatch import respond
from ..lifespan import Message, Receive, Send
from .closing import INTERNAL_ERROR, POLICY_VIOLATION, SERVICE_RESTART, TOO_LARGE
from .handshake import Handshake
from .outbox import Outbox
from .subscription import Subscription, is_end_of_stream

logger = logging.getLogger(__name__)

MAX_REQUESTS = 1000
"""Requests of one socket that may wait for their reply. A client that sends more has the socket closed."""

MAX_INVALID_FRAMES = 3
"""Frames that cannot be read, or are too large, after which the socket is closed."""


class Session:
    """One open socket.

    Args:
        handshake: the request that has opened it.
        receive, send: of the ASGI server.
    """

    def __init__(self, handshake: Handshake, receive: Receive, send: Send) -> None:
        self._handshake = handshake
        self._receive = receive
        self._outbox = Outbox(send, self._end_subscription)
        self._loop = asyncio.get_running_loop()
        self._subscriptions: dict[str, Subscription] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._appends: dict[str, deque[tuple[Append, bytes]]] = {}
        """The appends that wait, by path. The one that is being applied is the first."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._invalid_frames = 0

    async def run(self) -> None:
        """Serve the socket until it is closed. Nothing is left of it then."""
        add_live_reader(self)
        receiving = self._spawn(self._receive_frames())
        limit = config()
        self._outbox.reply(
            websocket.message(
                "welcome",
                version=websocket.VERSION,
                maxStreams=limit.websocket_max_streams,
                maxFrameBytes=limit.websocket_max_frame_bytes,
            )
        )
        try:
            await self._outbox.run()
        finally:
            remove_live_reader(self._loop, self)
            tasks = [receiving, *self._tasks]
            for task in tasks:
                task.cancel()
            for subscription in self._subscriptions.values():
                subscription.close()
            for waiting in self._appends.values():
                memory.release(sum(len(body) for _, body in waiting))
                waiting.clear()  # code of the project may keep the present append from being cancelled
            self._subscriptions.clear()
            self._starting.clear()
            await asyncio.gather(*tasks, return_exceptions=True)

    def mark_ready(self, subscription: Subscription) -> None:
        """A subscription may have a frame."""
        self._outbox.mark_ready(subscription)

    def stop(self) -> None:
        """The server is about to end. Must not block."""
        self._outbox.end(SERVICE_RESTART, "The server is about to end. Connect again.")

    # Frames.

    async def _receive_frames(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._outbox.leave()
                return
            if self._outbox.is_ending:
                continue
            try:
                self._handle(message)
            except (InvalidFrame, PayloadTooLarge) as error:
                self._refuse_frame(error)
            if self._requests + len(self._outbox.replies) > MAX_REQUESTS:
                self._outbox.end(POLICY_VIOLATION, "Too many requests wait for their reply.")

    def _handle(self, message: Message) -> None:
        """Handle a frame.

        Raises:
            InvalidFrame, PayloadTooLarge.
        """
        text, payload = message.get("text"), None
        data = text.encode() if text is not None else bytes(message.get("bytes") or b"")
        limit = config().websocket_max_frame_bytes
        if len(data) > limit:
            raise PayloadTooLarge(f"A frame has at most {limit} bytes. Split it, or send the data by HTTP.")
        if text is not None:
            frame = websocket.parse(data)
        else:
            frame, payload = websocket.parse_binary(data)
        if isinstance(frame, Pong):
            self._outbox.confirm(frame.n)
        elif isinstance(frame, Ping):
            self._outbox.reply(websocket.message("pong", n=frame.n))
        elif isinstance(frame, Append):
            self._add_append(frame, frame.take_body(payload))
        elif isinstance(frame, Subscribe):
            self._add_subscription(frame)
        else:
            self._unsubscribe(frame)

    def _refuse_frame(self, error: DurableStreamsError) -> None:
        self._invalid_frames += 1
        self._reply_error(error)
        if self._invalid_frames >= MAX_INVALID_FRAMES:
            code = TOO_LARGE if isinstance(error, PayloadTooLarge) else POLICY_VIOLATION
            self._outbox.end(code, f"{MAX_INVALID_FRAMES} frames were invalid or too large.")

    def _reply_error(self, error: Exception, request: str | None = None, name: str | None = None) -> None:
        if not isinstance(error, DurableStreamsError):
            logger.error("A frame of a WebSocket failed.", exc_info=error)
            error = DurableStreamsError("The server failed to answer. Its log has the error.")
        request_numbers.websocket.add((request or request_numbers.OTHER, error.status))
        request_numbers.count_error(error)
        headers = dict(error.headers)
        self._outbox.reply(websocket.error_frame(error.status, error.problem(), headers, request=request, name=name))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A WebSocket failed. It is closed.", exc_info=error)
            self._outbox.end(INTERNAL_ERROR, "The server failed. Its log has the error.")

    # Subscriptions.

    def _add_subscription(self, frame: Subscribe) -> None:
        name = frame.name
        if name in self._subscriptions or name in self._starting:
            raise InvalidFrame("This id is in use. Unsubscribe first, or choose another id.")
        limit = config().websocket_max_streams
        if len(self._subscriptions) + len(self._starting) >= limit:
            error = TooManyRequests(
                f"A WebSocket follows at most {limit} streams. Unsubscribe from some, or open another."
            )
            self._reply_error(error, "subscribe", name)
            return
        self._requests += 1
        task = self._starting[name] = self._spawn(self._subscribe(frame))
        task.add_done_callback(partial(self._started, name))

    def _started(self, name: str, task: asyncio.Task[None]) -> None:
        """A subscription has started, was refused, or was cancelled."""
        self._requests -= 1
        if self._starting.get(name) is task:
            del self._starting[name]

    async def _subscribe(self, frame: Subscribe) -> None:
        name = frame.name
        try:
            subscription = await self._start(frame)
        except Exception as error:
            self._reply_error(error, "subscribe", name)
        else:
            request_numbers.websocket.add(("subscribe", 200))
            self._subscriptions[name] = subscription
            self._outbox.mark_ready(subscription)

    async def _start(self, frame: Subscribe) -> Subscription:
        path = paths.validate_again(frame.path)
        query = {**frame.query, "offset": frame.offset, "live": "websocket"}
        request = self._handshake.request("GET", path, query)
        guard = current_guard()
        if guard is not None:
            await request.identify(guard)
            await guard.admit(request)
        offset = offsets.decode(frame.offset)
        engine = engine_for()
        slot = engine.live_reader_limit.acquire()
        subscription = None
        try:
            snapshot = await engine.read(path, offset)
            if snapshot.info.ttl is not None:
                engine.renew(snapshot.info)
            subscription = Subscription(engine, frame, snapshot, slot, request.grant, self)
            reply = await subscription.start(snapshot)
            if self._starting.get(frame.name) is not asyncio.current_task():
                raise asyncio.CancelledError  # code of the project has kept it from being cancelled
            self._outbox.reply(reply)
        except BaseException:
            slot.release()
            if subscription is not None:
                subscription.close()
            raise
        return subscription

    def _unsubscribe(self, frame: Unsubscribe) -> None:
        starting = self._starting.pop(frame.id, None)
        if starting is not None:
            starting.cancel()
        subscription = self._subscriptions.pop(frame.id, None)
        if subscription is not None:
            subscription.close()
        self._outbox.reply(websocket.message("unsubscribed", id=frame.id))

    def _end_subscription(self, subscription: Subscription, error: DurableStreamsError | None) -> None:
        """Forget a subscription that has ended: its stream is closed, or there is an error."""
        if self._subscriptions.get(subscription.name) is not subscription:
            return
        del self._subscriptions[subscription.name]
        subscription.close()
        if error is not None and is_end_of_stream(error):
            self._outbox.reply(websocket.message("deleted", id=subscription.name))
        elif error is not None:
            self._reply_error(error, "subscribe", subscription.name)

    # Appends.

    def _add_append(self, frame: Append, body: bytes) -> None:
        try:
            memory.reserve(len(body))
        except DurableStreamsError as error:
            self._reply_error(error, "append", frame.id)
            return
        self._requests += 1
        waiting = self._appends.get(frame.path)
        if waiting is not None:
            waiting.append((frame, body))
        else:
            self._appends[frame.path] = deque([(frame, body)])
            self._spawn(self._apply_appends(frame.path))

    async def _apply_appends(self, path: str) -> None:
        """Apply the appends to one stream, one after the other."""
        waiting = self._appends[path]
        while waiting:
            frame, body = waiting[0]
            try:
                await self._append(frame, body)
            except Exception as error:
                self._reply_error(error, "append", frame.id)
            if waiting:  # otherwise the socket has ended
                waiting.popleft()
                memory.release(len(body))
            self._requests -= 1
        self._appends.pop(path, None)

    async def _append(self, frame: Append, body: bytes) -> None:
        path = paths.validate_again(frame.path)
        request = self._handshake.request("POST", path, frame.query, frame.headers())
        request.frame_body = body
        tracing.start(request)
        guard = current_guard()
        if guard is not None:
            await request.identify(guard)
        response = await respond(request)
        request_numbers.count(request_numbers.websocket, request, response.status)
        headers = dict(response.headers)
        if response.status >= 400:
            problem = getattr(response, "body", b"")
            self._outbox.reply(
                websocket.error_frame(response.status, problem, headers, request="append", name=frame.id)
            )
            return
        fields = websocket.header_fields(headers)
        is_duplicate = True if body and response.status == 204 and "producerSeq" in fields else None
        self._outbox.reply(websocket.message("appended", id=frame.id, duplicate=is_duplicate, **fields))
