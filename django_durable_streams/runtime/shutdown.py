"""Ending live readers when their server ends, or when the process is asked to end.

"Stopping" is a matter of one server's run (`servers`), and is asked of that server for as long as somebody reads. A
process has no such state: a signal ends those who read now, and nobody who comes later, as it may not end the process
at all. Ctrl-C in a shell does not.
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
"""How often servers are asked whether they are ending, while somebody reads."""

GRACE_SECONDS = 0.5
"""How long live readers have to end where a signal is not handled by anybody else."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class LiveReader(Protocol):
    """Somebody who waits for news, and has to be told that there will be none."""

    def stop(self) -> None:
        """End soon: what serves this reader is about to. Must not block. May be called again."""


class ShutdownMonitor:
    """Stops the live readers of one event loop when a server that runs there ends, or at a signal.

    There is one while there are readers, or soon after. It takes no thread and no task.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Each with the servers that it depends on beyond those of the event loop.
        self._readers: dict[LiveReader, Sequence[RunningServer]] = {}
        self._servers = servers_of_loop(loop)
        self._holds_signals = hold_signals()
        self._is_stopping = False
        self._timer = loop.call_later(POLL_SECONDS, self._look)

    def add(self, reader: LiveReader, servers: Sequence[RunningServer]) -> None:
        """Take in a reader."""
        self._readers[reader] = servers

    def remove(self, reader: LiveReader) -> None:
        """Let a reader go. Without any, this closes at once or, in a server's loop, where others may come, soon."""
        self._readers.pop(reader, None)
        if not self._readers and not self._servers:
            self.close()

    @property
    def has_readers(self) -> bool:
        """Whether anybody reads."""
        return bool(self._readers)

    def close(self) -> None:
        """Give back the timer and the signals, and be forgotten."""
        self._timer.cancel()
        if _monitors.get(self._loop) is self:
            del _monitors[self._loop]
        if self._holds_signals:
            self._holds_signals = False
            release_signals()

    def stop_readers(self) -> None:
        """Stop all who read now. For the event loop's thread."""
        self._is_stopping = False
        for reader in list(self._readers):
            stop_reader(reader)

    def stop_readers_soon(self) -> None:
        """The same from any thread and from a signal handler; as often as one likes."""
        if self._is_stopping:
            return
        self._is_stopping = True
        try:
            self._loop.call_soon_threadsafe(self.stop_readers)
        except RuntimeError:  # the loop was closed, and its readers with it
            self._is_stopping = False

    def take_signal(self) -> None:
        """A signal has asked the process to end."""
        for server in self._servers:
            server.is_signalled = True
        self.stop_readers_soon()

    def _look(self) -> None:
        if not self._readers:
            self.close()
            return
        self._timer = self._loop.call_later(POLL_SECONDS, self._look)
        if any(server.is_over() for server in self._servers):
            self._servers = servers_of_loop(self._loop)
        is_ending = any(server.is_ending() for server in self._servers)
        for reader, servers in list(self._readers.items()):
            if is_ending or any(server.is_ending() for server in servers):
                stop_reader(reader)


def stop_reader(reader: LiveReader) -> None:
    """Tell a reader to end soon. One that fails at that does not block the others."""
    try:
        reader.stop()
    except Exception:
        logger.exception("A live reader could not be stopped.")


_monitors: dict[asyncio.AbstractEventLoop, ShutdownMonitor] = {}
"""The monitors that have readers, or had some a moment ago."""


def add_reader(reader: LiveReader, servers: Sequence[RunningServer] = ()) -> None:
    """Take in a live reader of the running event loop. If its server is ending already, it is stopped soon.

    Args:
        servers: which servers the reader depends on, beyond those that run in the event loop.
    """
    loop = asyncio.get_running_loop()
    monitor = _monitors.get(loop)
    if monitor is None:
        for ended in [known for known in list(_monitors) if known.is_closed()]:
            _monitors[ended].close()  # its readers were abandoned with it
        monitor = _monitors[loop] = ShutdownMonitor(loop)
    monitor.add(reader, servers)


def remove_reader(loop: asyncio.AbstractEventLoop, reader: LiveReader) -> None:
    """Let a live reader go that has ended."""
    monitor = _monitors.get(loop)
    if monitor is not None:
        monitor.remove(reader)


def stop_readers_of(loop: asyncio.AbstractEventLoop) -> None:
    """Stop the live readers of an event loop soon. Safe to call from any thread."""
    found = _monitors.get(loop)
    if found is not None:
        found.stop_readers_soon()


def has_readers_elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether somebody reads in another event loop of this process."""
    return any(
        monitor.has_readers and known is not loop and not known.is_closed()
        for known, monitor in list(_monitors.items())
    )


class _Handler:
    """Stops live readers, then does what would have been done without it."""

    def __init__(self, previous: Any) -> None:
        self.previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        monitors = [monitor for monitor in list(_monitors.values()) if monitor.has_readers]
        for monitor in monitors:
            monitor.take_signal()
        if callable(self.previous):
            self.previous(number, frame)
        elif self.previous == signal.SIG_DFL:
            # That ends the process at once, and the responses with it: they need a moment. hypercorn does this to its
            # other workers when the first has ended. A second signal does not wait.
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
    """Have SIGTERM and SIGINT stop live readers until `release_signals` is called as often as this has returned True.

    Handlers can be set from the main thread only. Elsewhere it does nothing, and returns False.
    """
    global _holders
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        for number in SIGNALS:
            previous = signal.getsignal(number)
            # None: set by something that is not Python.
            if previous is not None and previous is not _handlers.get(number):
                signal.signal(number, handler := _Handler(previous))
                _handlers[number] = handler
    except ValueError:  # not the main interpreter
        return False
    _holders += 1
    return True


def release_signals() -> None:
    """Take the handlers away with the last who holds them, unless somebody has put another one in front."""
    global _holders
    _holders -= 1
    if _holders > 0 or threading.current_thread() is not threading.main_thread():
        return
    for number, handler in list(_handlers.items()):
        found: object = signal.getsignal(number)
        if found is handler:
            # That of an `asyncio.run` that is over would keep the next one from setting its own.
            has_ended = _is_of_ended_run(handler.previous)
            signal.signal(number, signal.default_int_handler if has_ended else handler.previous)
            del _handlers[number]


def _is_of_ended_run(handler: object) -> bool:
    """Whether a handler for Ctrl-C is that of an `asyncio.run` which has come to its end."""
    main_task = handler.keywords.get("main_task") if isinstance(handler, partial) else None
    return isinstance(main_task, asyncio.Task) and main_task.done()


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold them for a block, if this is the main thread."""
    holds = hold_signals()
    try:
        yield
    finally:
        if holds:
            release_signals()


def _forget() -> None:
    """A child has none of the event loops. Handlers stay until they are released the next time, and do no harm."""
    global _holders
    _monitors.clear()
    _holders = 0


os.register_at_fork(after_in_child=_forget)
