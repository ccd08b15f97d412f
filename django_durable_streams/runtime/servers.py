"""Which server program runs in an event loop or around a thread, and whether it is ending.

Servers wait for open responses before they tell an application that they stop, and not every way to end a server is a
signal. Each program knows by itself that it is ending, so its own objects are asked. They are found where they are at
work: in the coroutines of an event loop's tasks, or in the frames of the thread that answers a WSGI request.

Knows no stream, and imports no server.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CoroutineType, FrameType
from typing import Any

Probe = Callable[[], bool]


@dataclass(slots=True)
class RunningServer:
    """One run of a server program.

    Attributes:
        asks: returns whether the server is ending.
        is_over: returns whether the run has ended, so that there is nothing left to ask.
        ends_at_signals: SIGTERM and SIGINT always end it, and it does not show that in any other way.
        is_signalled: such a signal has come.
    """

    asks: Probe
    is_over: Probe
    ends_at_signals: bool = False
    is_signalled: bool = False

    def is_ending(self) -> bool:
        """Whether the server waits for its open responses, or is about to."""
        return (self.ends_at_signals and self.is_signalled) or self.asks()


def servers_of_loop(loop: asyncio.AbstractEventLoop) -> list[RunningServer]:
    """Return the servers that run in an event loop. May be called from another thread."""
    found = []
    for task in _tasks(loop):
        for coroutine in _coroutines(task):
            server = _server_of_coroutine(coroutine)
            if server is not None:
                found.append(server)
    return found


def _server_of_coroutine(coroutine: CoroutineType[Any, Any, Any]) -> RunningServer | None:
    frame: FrameType | None = coroutine.cr_frame
    find = _IN_COROUTINES.get((_module(frame), frame.f_code.co_name)) if frame is not None else None
    if frame is None or find is None:
        return None
    asks = find(frame.f_locals)
    if asks is None:
        return None
    return RunningServer(asks, lambda: coroutine.cr_frame is None, ends_at_signals=find is _granian)


def servers_of_thread() -> list[RunningServer]:
    """Return the WSGI server that has called the code that runs here, if it is one that shows that it ends."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        for make in _IN_FRAMES:
            server = make(frame)
            if server is not None:
                return [server]
        frame = frame.f_back
    return []


def servers_around() -> list[RunningServer]:
    """Return the servers that synchronous code may serve: that of its thread, and those of the main thread's loop."""
    found = servers_of_thread()
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        loop = _loop_of(frame.f_locals.get("self")) if _module(frame).startswith("asyncio.") else None
        if loop is not None:
            return [*found, *servers_of_loop(loop)]
        frame = frame.f_back
    return found


def _loop_of(runner: object) -> asyncio.AbstractEventLoop | None:
    if isinstance(runner, asyncio.AbstractEventLoop):
        return runner
    # Loops that are not written in Python have no frames, but what runs them has.
    return runner.get_loop() if isinstance(runner, asyncio.Runner) else None


def _tasks(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks(loop)
    except RuntimeError:  # tasks of a kind of their own (granian), or a set that changes all the time
        return set()


def _coroutines(task: asyncio.Task[Any]) -> Iterator[CoroutineType[Any, Any, Any]]:
    """Yield a task's coroutine and those that it waits for, from the outermost."""
    waits_for: object = task.get_coro()
    while isinstance(waits_for, CoroutineType):
        yield waits_for
        waits_for = waits_for.cr_await


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _uvicorn(names: Mapping[str, Any]) -> Probe | None:
    """`should_exit` is set by its signal handlers, and by programs. At its limit of requests it stops listening."""
    server = names.get("self")
    if server is None:
        return None
    return lambda: bool(server.should_exit) or not all(each.is_serving() for each in getattr(server, "servers", ()))


def _hypercorn(names: Mapping[str, Any]) -> Probe | None:
    """Whatever its trigger was, `terminated` is set before it waits for its connections."""
    context = names.get("context")
    return context.terminated.is_set if context is not None else None


def _granian(names: Mapping[str, Any]) -> Probe | None:
    """A worker process ends at signals only, and shows nothing of it until all its connections have ended."""
    return lambda: False


def _granian_embedded(names: Mapping[str, Any]) -> Probe | None:
    worker = names.get("self")
    return (lambda: bool(worker.interrupt_by_parent)) if worker is not None else None


_IN_COROUTINES: dict[tuple[str, str], Callable[[Mapping[str, Any]], Probe | None]] = {
    ("uvicorn.server", "_serve"): _uvicorn,
    ("hypercorn.asyncio.run", "worker_serve"): _hypercorn,
    ("granian.server.mp", "_main"): _granian,
    ("granian.server.embed", "_watcher"): _granian_embedded,
}
"""By the module and the name of a coroutine function that runs for as long as the server does."""


def _gunicorn(frame: FrameType) -> RunningServer | None:
    """Its WSGI workers look at `alive`, which is cleared by signals, at the limit of requests, and by the arbiter."""
    worker: Any = frame.f_locals.get("self") if _module(frame).startswith("gunicorn.workers.") else None
    if not hasattr(worker, "alive"):
        return None
    return RunningServer(lambda: not worker.alive, lambda: False)


def _socketserver(frame: FrameType) -> RunningServer | None:
    """wsgiref and whatever else is built on it: `server_close` closes its socket, then waits for its threads."""
    listener = getattr(frame.f_locals.get("self"), "socket", None) if _module(frame) == "socketserver" else None
    if listener is None or frame.f_code.co_name not in ("process_request", "process_request_thread"):
        return None
    return RunningServer(lambda: listener.fileno() == -1, lambda: False)


_IN_FRAMES: tuple[Callable[[FrameType], RunningServer | None], ...] = (_gunicorn, _socketserver)
