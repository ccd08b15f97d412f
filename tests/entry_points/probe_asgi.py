"""The example project with a window: `/_probe` tells what the serving process holds.

Only tests serve this. The window is behind the streams, so that these are served as they are to everybody.
"""

import asyncio
import gc
import json
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from config.asgi import django_application, websockets
from django.conf import settings
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from django_durable_streams.engine.engine import running_engines
from django_durable_streams.protocol.messages import Request
from django_durable_streams.server import response_memory
from django_durable_streams.server.answers import EventStream
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.bodies import ArrivingBody, memory
from django_durable_streams.server.uvicorn.fast_path import FastPathConnection

CONNECTIONS = (HttpToolsProtocol, H11Protocol)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PROBE_PATH = "/_probe"

# Tasks that outlive their reader for some seconds by design: the hub's, which looks at watched streams, and those that
# hypercorn has for a connection, which it keeps after that is closed until its keep-alive is over.
LINGERING = {
    "Hub._tick",
    "worker_serve.<locals>._server_callback",
    "TCPServer._idle_timeout",
    "EventWrapper.wait",
}


async def window(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the probe; hand everything else on."""
    if scope["type"] == "websocket":
        await websockets(scope, receive, send)
        return
    if scope["type"] != "http" or scope["path"] != PROBE_PATH:
        await django_application(scope, receive, send)
        return
    await answer(scope, receive, send)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell what this process holds; with `collect` as the query, without what nobody holds."""
    if scope["query_string"] == b"collect":
        gc.collect()
    body = json.dumps(findings()).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


application = DurableStreams(prefix="/v1/stream/" if settings.EXAMPLE_ENTRY_POINT == "asgi" else None, fallback=window)


def findings() -> dict[str, int]:
    """What this process holds, counted."""
    descriptors = list(open_descriptors())
    kinds = Counter(map(type, gc.get_objects()))
    return {
        "pid": os.getpid(),
        "tasks": sum(name_of(task) not in LINGERING for task in asyncio.all_tasks()),
        "threads": threading.active_count(),
        "listeners": sum(
            len(watch.listeners)
            for engine in running_engines()
            for hub in list(engine._hubs.values())
            for watch in list(hub._watches.values())
        ),
        "direct": count(kinds, FastPathConnection),
        # One is the probe's own.
        "connections": count(kinds, *CONNECTIONS),
        "requests": count(kinds, Request, EventStream, ArrivingBody),
        "places": sum(len(engine.live_reader_limit) for engine in running_engines()),
        "held": memory.held,
        "transfers": len(response_memory.memory),
        "files": sum(not target.startswith("socket:") for target in descriptors),
        "databases": sum(target.endswith(".sqlite3") for target in descriptors),
    }


def count(kinds: Counter[type], *classes: type) -> int:
    """How many objects there are of these classes, by the numbers of all objects' types."""
    return sum(number for kind, number in kinds.items() if issubclass(kind, classes))


def name_of(task: asyncio.Task[Any]) -> str:
    """The function that a task runs."""
    return getattr(task.get_coro(), "__qualname__", "")


def open_descriptors() -> Iterator[str]:
    """What the open file descriptors of this process lead to."""
    for number in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that the listing itself had open
            continue
