"""Sends the frames of one socket, as far as its window has room.

Replies come first, then the subscriptions that have news, one frame each in turn. So a stream with much data does not
delay the others. While a frame waits for the client, only its own subscription keeps a page, which counts towards
MAX_RESPONSE_MEMORY as far as there is room. Knows neither requests nor permissions.

An optimisation: while the task of the outbox waits for news, the hub sends a frame itself, as it does with event
streams. The invariant: nothing else is being sent or waits to be sent then. A send that has to wait is left to the
task. It applies where the server is known not to need the task. With the shared frames of `Subscription.take_live`, an
append to 1,000 sockets takes a third of the time (`python -m benchmarks.websocket`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from ...conf import config
from ...protocol import websocket
from ...protocol.errors import DurableStreamsError
from ...protocol.messages import ENDING_SECONDS
from ...protocol.websocket import ServerFrame
from ..asgi_sending import Sender
from ..coroutines import start, start_for_value
from ..lifespan import Message, Send
from ..response_memory import PIECE_BYTES, Transfer, memory
from ..transports import find_server
from .closing import close
from .subscription import Step, Subscription
from .window import UnconfirmedBytes, Window

CHECKS_PER_TIMEOUT = 4
"""How often the deadline of a ping is checked within SEND_TIMEOUT."""


class Outbox:
    """The sending half of one socket.

    Args:
        send: sends ASGI messages of the socket.
        on_end: is called with a subscription that has ended, and with its error.
    """

    def __init__(self, send: Send, on_end: Callable[[Subscription, DurableStreamsError | None], None]) -> None:
        self.replies: deque[ServerFrame] = deque()
        self._send_message = send
        self._sends_at_once = find_server(send) is not None
        self._sender = Sender(send)
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._window = Window(time.monotonic())
        self._ready: deque[Subscription] = deque()
        self._news = asyncio.Event()
        self._last_sent = time.monotonic()
        self._wants_ping = False
        self._closing: tuple[int, str] | None = None
        self._is_waiting = False
        """Whether the task waits for news, and has nothing to send."""
        self._is_blocked = False
        """Whether a frame waits for the client."""
        self._sending: Subscription | None = None
        """The subscription whose frame is being sent. Its next page waits with it."""
        self._page: Transfer[bytes] | None = None
        """That page, while it counts towards MAX_RESPONSE_MEMORY."""
        self._unsent: Awaitable[None] | None = None
        """The rest of a send that the hub has started."""
        self._has_left = False
        self._is_over = False
        self._fetching: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    @property
    def is_ending(self) -> bool:
        """Whether the socket is about to be closed."""
        return self._closing is not None

    def reply(self, frame: ServerFrame) -> None:
        """Send a frame soon."""
        self.replies.append(frame)
        self._wake()

    def mark_ready(self, subscription: Subscription) -> None:
        """Ask a subscription for its next frame soon."""
        if subscription.is_ready or (self._is_waiting and self._sends_at_once and self._push(subscription)):
            return
        subscription.is_ready = True
        self._ready.append(subscription)
        if self._is_blocked:
            subscription.drop_page()
        self._wake()

    def confirm(self, number: int) -> None:
        """The client has answered a ping.

        Raises:
            InvalidFrame: there was no such ping.
        """
        self._window.confirm(number, time.monotonic())
        self._wake()

    def end(self, code: int, reason: str) -> None:
        """Close the socket after the replies that wait. Only the first call counts."""
        if self._closing is None and not self._is_over:
            self._closing = code, reason
            self._end_timer = self._loop.call_later(ENDING_SECONDS, self.cut_off)
            self._sender.hurry()
            self._wake()

    def leave(self) -> None:
        """The client has left."""
        self._has_left = True
        self._stop_fetching()
        self._wake()

    def cut_off(self) -> None:
        """End at once, and close the connection although its client has not taken all data."""
        self.leave()
        self._sender.cut_off()

    async def run(self) -> None:
        """Send until the socket is closed, or until its client has left or takes no data."""
        self._watch()
        try:
            while not self._has_left:
                has_room = self._window.has_room
                if self._closing is not None and self._unsent is None and not (self.replies and has_room):
                    await close(self._emit, *self._closing)
                    return
                await self._step(has_room)
        except OSError:
            pass  # the client has left, or takes no data
        finally:
            self._is_over = True
            self._window.close()
            for timer in (self._timer, self._end_timer):
                if timer is not None:
                    timer.cancel()

    def _wake(self) -> None:
        self._is_waiting = False
        self._news.set()

    async def _step(self, has_room: bool) -> None:
        if self._unsent is not None:
            unsent, self._unsent = self._unsent, None
            await self._wait_for_client(unsent)
        elif has_room and self.replies:
            await self._send(self.replies.popleft())
        elif has_room and self._wants_ping:
            self._wants_ping = False
            await self._ping()
        elif has_room and self._ready:
            subscription = self._ready.popleft()
            subscription.is_ready = False
            await self._advance(subscription)
        else:
            self._drop_pages()
            self._news.clear()
            self._is_waiting = has_room
            await self._news.wait()
            self._is_waiting = False

    async def _advance(self, subscription: Subscription) -> None:
        """Send the next frame of a subscription, or read the data for it."""
        try:
            frame = subscription.take()
            if frame is Step.WAIT:
                return
            if isinstance(frame, ServerFrame):
                transfer = self._admit(frame)
            else:
                await self._fetch(subscription)
        except DurableStreamsError as error:
            self._on_end(subscription, error)
            return
        if isinstance(frame, ServerFrame):
            self._sending = subscription
            try:
                await self._send(frame, transfer)
            finally:
                self._sending = None
        if subscription.finished:
            self._on_end(subscription, None)
        else:
            self.mark_ready(subscription)

    def _push(self, subscription: Subscription) -> bool:
        """Send the next frame of a subscription from the hub. Return whether that is all it has now."""
        try:
            frame = subscription.take_live()
        except DurableStreamsError:
            return False  # the task gets the error, too
        if frame is None:
            return False
        self._count(frame)
        try:
            self._unsent = start(self._send_message(_message(frame)))
        except (OSError, RuntimeError):
            self.leave()
            return True
        if self._unsent is not None or self._window.is_ping_due or not self._window.has_room:
            self._wants_ping = self._window.is_ping_due
            self._wake()
        return True

    async def _fetch(self, subscription: Subscription) -> None:
        """Read data. The end of the socket does not wait for it."""
        try:
            async with asyncio.timeout(None) as self._fetching:
                await subscription.fetch()
        except TimeoutError:
            pass  # the client has left
        finally:
            self._fetching = None

    def _stop_fetching(self) -> None:
        if self._fetching is not None and not self._fetching.expired():
            self._fetching.reschedule(self._loop.time())

    def _admit(self, frame: ServerFrame) -> Transfer[UnconfirmedBytes] | None:
        """Count a large frame until it is confirmed.

        Raises:
            ServiceUnavailable: there is no room for it.
        """
        if frame.size <= PIECE_BYTES:
            return None
        transfer = Transfer(UnconfirmedBytes(frame.size), self._loop, self.cut_off)
        memory.admit(transfer)
        return transfer

    async def _send(self, frame: ServerFrame, transfer: Transfer[UnconfirmedBytes] | None = None) -> None:
        self._count(frame, transfer)
        await self._emit(_message(frame))
        if self._window.is_ping_due:
            await self._ping()

    def _count(self, frame: ServerFrame, transfer: Transfer[UnconfirmedBytes] | None = None) -> None:
        self._window.add(frame.size, transfer)
        self._last_sent = time.monotonic()

    async def _ping(self) -> None:
        """Send a ping, which counts as sent before it is: the connection may be full."""
        number = self._window.ping(time.monotonic())
        content = websocket.message("ping", n=number).content
        await self._emit({"type": "websocket.send", "text": content})

    async def _emit(self, message: Message) -> None:
        """Send an ASGI message.

        Raises:
            OSError: the client takes no data, or has left.
        """
        try:
            _, rest = start_for_value(self._send_message(message))
            if rest is not None:
                await self._wait_for_client(rest)
        except RuntimeError as error:  # uvicorn has closed the socket
            raise BrokenPipeError("The socket is closed.") from error

    async def _wait_for_client(self, rest: Awaitable[None]) -> None:
        """Finish a send that has to wait."""
        self._is_blocked = True
        self._drop_pages()
        self._count_page()
        try:
            await self._sender.finish(rest, self._window.pieces)
        finally:
            self._is_blocked = False
            self._release_page()

    def _count_page(self) -> None:
        """Count the page of the subscription whose frame waits, or drop it if there is no room for it."""
        data = None if self._sending is None else self._sending.page_data
        if data is None:
            return
        self._page = Transfer(data, self._loop, self._drop_page)
        if not memory.add_if_room(self._page):
            self._drop_page()

    def _release_page(self) -> None:
        if self._page is not None:
            memory.remove(self._page)
            self._page = None

    def _drop_page(self) -> None:
        """Drop that page, because others need the memory. It is read again."""
        self._release_page()
        if self._sending is not None:
            self._sending.drop_page()

    def _drop_pages(self) -> None:
        for subscription in self._ready:
            subscription.drop_page()

    def _watch(self) -> None:
        """Ping an idle client, and cut off a client that confirms nothing."""
        settings = config()
        now = time.monotonic()
        if self._window.is_overdue(now, settings.send_timeout):
            self.cut_off()
            return
        if now - self._last_sent >= settings.sse_keep_alive and not self._window.is_waiting:
            self._wants_ping = True
            self._wake()
        seconds = min(settings.sse_keep_alive, settings.send_timeout / CHECKS_PER_TIMEOUT)
        self._timer = self._loop.call_later(seconds, self._watch)


def _message(frame: ServerFrame) -> Message:
    return {"type": "websocket.send", "text" if isinstance(frame.content, str) else "bytes": frame.content}
