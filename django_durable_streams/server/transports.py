"""Finds the connection behind an ASGI `send`, to close it at once although its client takes no data.

ASGI has no such message, and a server that closes a connection as usual keeps the unsent data until the client has
taken it. Where the connection is not server_send, the server's own deadlines count. Imports no server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

MAX_WRAPPERS = 8
"""How many functions around a server's `send` are looked through."""


def is_uvicorn(send: Any) -> bool:
    """Return whether a `send` is uvicorn's own."""
    return type(getattr(send, "__self__", None)).__module__.startswith("uvicorn.")


def is_daphne(send: Any) -> bool:
    """Return whether a `send` is Daphne's own."""
    return isinstance(send, partial) and type(getattr(send.func, "__self__", None)).__module__.startswith("daphne.")


def find_server(send: Any) -> Any:
    """Return the `send` of uvicorn or Daphne that is behind Channels' middleware for sessions, or None."""
    for _ in range(MAX_WRAPPERS):
        if is_uvicorn(send) or is_daphne(send):
            return send
        send = getattr(getattr(send, "__self__", None), "real_send", None)
    return None


def find_abort(send: Any) -> Callable[[], object] | None:
    """Return the function that closes the connection of a `send` of uvicorn or Daphne at once, or None."""
    server_send = find_server(send)
    if server_send is None:
        return None
    if is_uvicorn(server_send):
        return getattr(getattr(server_send.__self__, "transport", None), "abort", None)
    return getattr(getattr(server_send.args[0], "transport", None), "abortConnection", None)
