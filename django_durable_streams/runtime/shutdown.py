"""The end of live readers: when their server ends, or when a signal asks the process to end.

Only one server's run is "stopping" (`servers`), and it is asked while there are live readers. A process has no such
state. A signal ends the present live readers only, because it may not end the process: Ctrl-C in a shell does not.
Knows no stream.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Protocol

from .servers import RunningServer, servers_of_loop

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Interval at which servers are asked whether they are ending, while there are live readers."""

GRACE_SECONDS = 0.5
"""Time that live readers have to end, where no other handler receives the signal."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class LiveReader(Protocol):
    """Waits for new data, and ends when its server ends."""

    def stop(self) -> None:
        """End soon, because the server of this reader is about to end. Must not block. May be called again."""


class ShutdownMonitor:
    """Stops the live readers of one event loop when a server that runs there ends, or at a signal.

    It exists while there are readers, and a moment longer. It needs no thread and no task.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Each with the servers that it depends on, besides the servers of the event loop.
        self._readers: dict[LiveReader, Sequence[RunningServer]] = {}
        self._servers = servers_of_loop(loop)
        self._holds_signals = hold_signals()
        self._is_stopping = False
        self._timer = loop.call_later(POLL_SECONDS, self._check_servers)

    def add(self, reader: LiveReader, servers: Sequence[RunningServer]) -> None:
        """Add a reader. `servers` are those that it depends on, besides the servers of the event loop."""
        self._readers[reader] = servers

    def remove(self, reader: LiveReader) -> None:
        """Remove a reader. After the last one the monitor closes: at once or, in a server's loop, soon."""
        self._readers.pop(reader, None)
        if not self._readers and not self._servers:
            self.close()

    @property
    def has_readers(self) -> bool:
        """Whether there are live readers."""
        return bool(self._readers)

    def close(self) -> None:
        """Cancel the timer and release the signals. The next reader of the event loop gets a new monitor."""
        self._timer.cancel()
        if _monitors.get(self._loop) is self:
            del _monitors[self._loop]
        if self._holds_signals:
            self._holds_signals = False
            release_signals()

    def stop_readers(self) -> None:
        """Stop all present readers. Only for the event loop's thread."""
        self._is_stopping = False
        for reader in list(self._readers):
            stop_reader(reader)

    def stop_readers_soon(self) -> None:
        """The same, from any thread or signal handler, any number of times."""
        if self._is_stopping:
            return
        self._is_stopping = True
        try:
            self._loop.call_soon_threadsafe(self.stop_readers)
        except RuntimeError:  # the loop was closed, and its readers ended with it
            self._is_stopping = False

    def handle_signal(self) -> None:
        """Handle a signal that asks the process to end."""
        for server in self._servers:
            server.is_signalled = True
        self.stop_readers_soon()

    def _check_servers(self) -> None:
        if not self._readers:
            self.close()
            return
        self._timer = self._loop.call_later(POLL_SECONDS, self._check_servers)
        if any(server.is_over() for server in self._servers):
            self._servers = servers_of_loop(self._loop)
        is_ending = any(server.is_ending() for server in self._servers)
        for reader, servers in list(self._readers.items()):
            if is_ending or any(server.is_ending() for server in servers):
                stop_reader(reader)


def stop_reader(reader: LiveReader) -> None:
    """Ask a reader to end soon. Its failure does not affect other readers."""
    try:
        reader.stop()
    except Exception:
        logger.exception("A live reader could not be stopped. It may delay the end of the server.")


_monitors: dict[asyncio.AbstractEventLoop, ShutdownMonitor] = {}
"""The monitors that have readers, or had readers a moment ago."""


def add_live_reader(reader: LiveReader, servers: Sequence[RunningServer] = ()) -> None:
    """Add a live reader of the running event loop. If its server is ending already, the reader is stopped soon.

    Args:
        servers: the servers that the reader depends on, besides those that run in the event loop.
    """
    loop = asyncio.get_running_loop()
    monitor = _monitors.get(loop)
    if monitor is None:
        for closed_loop in [other for other in list(_monitors) if other.is_closed()]:
            _monitors[closed_loop].close()  # its readers were abandoned with it
        monitor = _monitors[loop] = ShutdownMonitor(loop)
    monitor.add(reader, servers)


def remove_live_reader(loop: asyncio.AbstractEventLoop, reader: LiveReader) -> None:
    """Remove a live reader that has ended."""
    monitor = _monitors.get(loop)
    if monitor is not None:
        monitor.remove(reader)


def stop_readers_of(loop: asyncio.AbstractEventLoop) -> None:
    """Stop the live readers of an event loop soon. Safe to call from any thread."""
    monitor = _monitors.get(loop)
    if monitor is not None:
        monitor.stop_readers_soon()


def has_readers_elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether another event loop of this process has live readers."""
    return any(
        monitor.has_readers and other is not loop and not other.is_closed()
        for other, monitor in list(_monitors.items())
    )


class _Handler:
    """A signal handler that stops live readers, then does the work of the handler before it."""

    def __init__(self, previous: Any) -> None:
        self.previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        monitors = [monitor for monitor in list(_monitors.values()) if monitor.has_readers]
        for monitor in monitors:
            monitor.handle_signal()
        if callable(self.previous):
            self.previous(number, frame)
        elif self.previous == signal.SIG_DFL:
            # The default ends the process at once, and the responses with it, which need a moment. hypercorn sends this
            # signal to its other workers when the first one has ended. A second signal does not wait.
            signal.signal(number, signal.SIG_DFL)
            if not monitors:
                os.kill(os.getpid(), number)
                return
            timer = threading.Timer(GRACE_SECONDS, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()


_handlers: dict[int, _Handler] = {}
_holders = 0


def hold_signals() -> bool:
    """Let SIGTERM and SIGINT stop live readers, until each call that returned True has its `release_signals`.

    Only the main thread can set handlers. In another thread this does nothing, and returns False.
    """
    global _holders
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        for number in SIGNALS:
            previous = signal.getsignal(number)
            # None: the handler was not set from Python.
            if previous is not None and previous is not _handlers.get(number):
                signal.signal(number, handler := _Handler(previous))
                _handlers[number] = handler
    except ValueError:  # not the main interpreter
        return False
    _holders += 1
    return True


def release_signals() -> None:
    """Release a hold. The last one removes the handlers, unless other code has set its own handler since."""
    global _holders
    _holders -= 1
    if _holders > 0 or threading.current_thread() is not threading.main_thread():
        return
    for number, handler in list(_handlers.items()):
        current: object = signal.getsignal(number)
        if current is handler:
            # A handler of an `asyncio.run` that has ended would prevent the next run from setting its own.
            has_ended = _is_of_ended_run(handler.previous)
            signal.signal(number, signal.default_int_handler if has_ended else handler.previous)
            del _handlers[number]


def _is_of_ended_run(handler: object) -> bool:
    """Whether a handler for Ctrl-C belongs to an `asyncio.run` that has ended."""
    main_task = handler.keywords.get("main_task") if isinstance(handler, partial) else None
    return isinstance(main_task, asyncio.Task) and main_task.done()


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold the signals for the block, if this is the main thread."""
    holds = hold_signals()
    try:
        yield
    finally:
        if holds:
            release_signals()


def _forget() -> None:
    """Forget the parent's event loops in a child. Handlers stay until the next release, and do no harm."""
    global _holders
    _monitors.clear()
    _holders = 0


os.register_at_fork(after_in_child=_forget)
