"""The control APIs, below `__ds/` in the root of the streams (specification, section 6).

No stream has such a path, so `dispatch` turns the error of a reserved path into a call of the handler. All other
requests pay nothing. The package that implements the control APIs registers the handler when the app starts. This
module knows nothing of what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..protocol import paths
from ..protocol.errors import DurableStreamsError, MethodNotAllowed
from ..protocol.messages import Request, Response
from ..protocol.paths import ReservedPath

ControlHandler = Callable[[Request], Awaitable[Response]]

_handler: ControlHandler | None = None


def register(handler: ControlHandler) -> None:
    """Let a function answer all requests whose path is reserved. It asks the guard itself."""
    global _handler
    _handler = handler


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
    if _handler is None:
        raise not_found()
    await asyncio.sleep(0)  # the fast path makes a task at the first wait, and the handler may need one
    return await _handler(request)


def not_found() -> DurableStreamsError:
    """Return the error for a path below `__ds/` that no control API has."""
    return ReservedPath("There is no control API at this path.")
