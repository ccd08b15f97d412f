"""The control APIs, below `__ds/` in the root of the streams (specification, section 6).

No stream has such a path, so `dispatch` turns the error of a reserved path into a call of a handler. All other
requests pay nothing. The modules that implement the control APIs register their handlers when the app starts. This
module knows nothing of what they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from ..protocol import headers, paths
from ..protocol.errors import DurableStreamsError, MethodNotAllowed
from ..protocol.messages import Request, Response
from ..protocol.paths import ReservedPath

T = TypeVar("T")

ControlHandler = Callable[[Request], Awaitable[Response]]

_handlers: dict[str, ControlHandler] = {}


def register(handler: ControlHandler, *names: str) -> None:
    """Let a function answer all requests whose path has one of the names after `__ds/`. It asks the guard itself."""
    _handlers.update(dict.fromkeys(names, handler))


def is_control(request: Request, error: BaseException) -> bool:
    """Return whether a request that was refused as one for a stream is one for the control APIs.

    A request for a stream may name a reserved path elsewhere, such as the source of a fork.
    """
    return isinstance(error, ReservedPath | MethodNotAllowed) and paths.is_reserved(request.path)


async def respond_control(request: Request) -> Response:
    """Return the response to a request for the control APIs.

    Raises:
        DurableStreamsError: the request is refused.
        ClientDisconnected: the client has left.
    """
    name = request.path.removeprefix(paths.CONTROL_ROOT).partition("/")[0]
    handler = _handlers.get(name)
    if handler is None:
        raise not_found()
    await asyncio.sleep(0)  # the fast path makes a task at the first wait, and the handler may need one
    return await handler(request)


def choose_method(request: Request, methods: Mapping[str, T]) -> T:
    """Return what a table has for the method of a request. A HEAD counts as a GET.

    Raises:
        MethodNotAllowed: the table has nothing for it (405, carries `Allow`).
    """
    method = "GET" if request.method == "HEAD" else request.method
    if method not in methods:
        allowed = [*methods, "HEAD", "OPTIONS"] if "GET" in methods else [*methods, "OPTIONS"]
        raise MethodNotAllowed(
            f"This path does not answer {request.method[:32]}.", ((headers.ALLOW, ", ".join(allowed).encode()),)
        )
    return methods[method]


def not_found() -> DurableStreamsError:
    """Return the error for a path below `__ds/` that no control API has."""
    return ReservedPath("There is no control API at this path.")
