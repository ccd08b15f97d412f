"""Which server program runs in an event loop or around a thread, and whether it is ending.

Servers wait for open responses before they tell the application that they stop, and a signal is only one way to end a
server. Each program's own objects know that it is ending, so this module reads them. It finds them in the coroutines of
an event loop's tasks, or in the frames of the thread that handles a WSGI request.

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

Check = Callable[[], bool]


@dataclass(slots=True)
class RunningServer:
    """One run of a server program.

    Attributes:
        shows_end: returns whether the server's own objects say that it is ending.
        is_over: returns whether the run has ended, so that its objects say nothing any more.
        ends_at_signals: SIGTERM and SIGINT always end the server, and its objects do not show it.
        is_signalled: such a signal has come.
    """

    shows_end: Check
    is_over: Check
    ends_at_signals: bool = False
    is_signalled: bool = False

    def is_ending(self) -> bool:
        """Whether the server waits for its open responses, or is about to."""
        return (self.ends_at_signals and self.is_signalled) or self.shows_end()


def servers_of_loop(loop: asyncio.AbstractEventLoop) -> list[RunningServer]:
    """Return the servers that run in an event loop. Safe to call from another thread."""
    servers = []
    for task in _tasks(loop):
        for coroutine in _coroutines(task):
            server = _server_of_coroutine(coroutine)
            if server is not None:
                servers.append(server)
    return servers


def _server_of_coroutine(coroutine: CoroutineType[Any, Any, Any]) -> RunningServer | None:
    frame: FrameType | None = coroutine.cr_frame
    find_check = _IN_COROUTINES.get((_module(frame), frame.f_code.co_name)) if frame is not None else None
    if frame is None or find_check is None:
        return None
    shows_end = find_check(frame.f_locals)
    if shows_end is None:
        return None
    return RunningServer(shows_end, lambda: coroutine.cr_frame is None, ends_at_signals=find_check is _granian)


def servers_of_thread() -> list[RunningServer]:
    """Return the WSGI server that has called the running code, if its objects show that it is ending."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        for make in _IN_FRAMES:
            server = make(frame)
            if server is not None:
                return [server]
        frame = frame.f_back
    return []


def servers_around() -> list[RunningServer]:
    """Return the servers for which synchronous code may work: in its thread, and in the main thread's loop."""
    servers = servers_of_thread()
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        loop = _loop_of(frame.f_locals.get("self")) if _module(frame).startswith("asyncio.") else None
        if loop is not None:
            return [*servers, *servers_of_loop(loop)]
        frame = frame.f_back
    return servers


def _loop_of(runner: object) -> asyncio.AbstractEventLoop | None:
    if isinstance(runner, asyncio.AbstractEventLoop):
        return runner
    # Loops that are not written in Python have no frames. The runner around them has one.
    return runner.get_loop() if isinstance(runner, asyncio.Runner) else None


def _tasks(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks(loop)
    except RuntimeError:  # granian has its own kind of tasks, or the set of tasks changes all the time
        return set()


def _coroutines(task: asyncio.Task[Any]) -> Iterator[CoroutineType[Any, Any, Any]]:
    """Yield a task's coroutine and the coroutines that it awaits, from the outermost."""
    waits_for: object = task.get_coro()
    while isinstance(waits_for, CoroutineType):
        yield waits_for
        waits_for = waits_for.cr_await


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _uvicorn(names: Mapping[str, Any]) -> Check | None:
    """Signal handlers and programs set `should_exit`. At its limit of requests the server stops listening."""
    server = names.get("self")
    if server is None:
        return None
    return lambda: (
        bool(server.should_exit) or not all(listener.is_serving() for listener in getattr(server, "servers", ()))
    )


def _hypercorn(names: Mapping[str, Any]) -> Check | None:
    """Every kind of end sets `terminated` before the server waits for its connections."""
    context = names.get("context")
    return context.terminated.is_set if context is not None else None


def _granian(names: Mapping[str, Any]) -> Check | None:
    """A worker process ends at signals only. Its objects show that only after all its connections have ended."""
    return lambda: False


def _granian_embedded(names: Mapping[str, Any]) -> Check | None:
    worker = names.get("self")
    return (lambda: bool(worker.interrupt_by_parent)) if worker is not None else None


_IN_COROUTINES: dict[tuple[str, str], Callable[[Mapping[str, Any]], Check | None]] = {
    ("uvicorn.server", "_serve"): _uvicorn,
    ("hypercorn.asyncio.run", "worker_serve"): _hypercorn,
    ("granian.server.mp", "_main"): _granian,
    ("granian.server.embed", "_watcher"): _granian_embedded,
}
"""By module and name of a coroutine function that runs as long as the server."""


def _gunicorn(frame: FrameType) -> RunningServer | None:
    """Signals, the limit of requests and the arbiter clear `alive` of its WSGI workers."""
    worker: Any = frame.f_locals.get("self") if _module(frame).startswith("gunicorn.workers.") else None
    if not hasattr(worker, "alive"):
        return None
    return RunningServer(lambda: not worker.alive, lambda: False)


def _socketserver(frame: FrameType) -> RunningServer | None:
    """For wsgiref and servers built on it: `server_close` closes the socket, then waits for the threads."""
    listener = getattr(frame.f_locals.get("self"), "socket", None) if _module(frame) == "socketserver" else None
    if listener is None or frame.f_code.co_name not in ("process_request", "process_request_thread"):
        return None
    return RunningServer(lambda: listener.fileno() == -1, lambda: False)


_IN_FRAMES: tuple[Callable[[FrameType], RunningServer | None], ...] = (_gunicorn, _socketserver)
