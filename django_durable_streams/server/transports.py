"""Finds the connection behind an ASGI `send`, to close it at once although its client takes no data.

ASGI has no such message, and a server that closes a connection as usual keeps the unsent data until the client has
taken it. Where the connection is not found, the server's own deadlines count. Imports no server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

MAX_WRAPPERS = 8
"""Functions around a server's `send` that are looked through."""


def is_uvicorn(send: Any) -> bool:
    """Return whether a `send` is uvicorn's own."""
    return type(getattr(send, "__self__", None)).__module__.startswith("uvicorn.")


def find_abort(send: Any) -> Callable[[], object] | None:
    """Return the function that closes the connection of a `send` at once, or None.

    Finds connections of uvicorn and Daphne, also behind the middleware for sessions of Channels.
    """
    for _ in range(MAX_WRAPPERS):
        owner = getattr(send, "__self__", None)
        if is_uvicorn(send):
            return getattr(getattr(owner, "transport", None), "abort", None)
        if isinstance(send, partial) and type(getattr(send.func, "__self__", None)).__module__.startswith("daphne."):
            return getattr(getattr(send.args[0], "transport", None), "abortConnection", None)
        send = getattr(owner, "real_send", None)
        if send is None:
            return None
    return None
