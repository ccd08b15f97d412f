"""The table of handlers: one for each method, the same for every entry point.

Knows which functions belong to a method, and nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..engine import Engine
from ..engine.engine import Task
from ..protocol import headers
from ..protocol.errors import MethodNotAllowed
from ..protocol.messages import Request, Response
from . import reads, writes
from .answers import EventStream, Work
from .cors import METHODS

SetBody = Callable[[Request, Any, bytes], None]
"""Adds the body to an engine's task."""


class Handler(NamedTuple):
    """The two halves of an operation. Between them, the engine applies the operations of many requests together.

    `parse` returns the engine's task. `set_body` adds the body to the task. It is None where a request has no body.
    `respond` makes the response from the task's outcome, or returns the work that leads to it.
    """

    parse: Callable[[Request], Task]
    respond: Callable[[Request, Engine, Any], Response | EventStream | Work]
    set_body: SetBody | None = None


HANDLERS = {
    "GET": Handler(reads.parse_read, reads.respond_read),
    "POST": Handler(writes.parse_append, writes.respond_append, writes.set_body_append),
    "PUT": Handler(writes.parse_create, writes.respond_create, writes.set_body_create),
    "HEAD": Handler(reads.parse_head, reads.respond_head),
    "DELETE": Handler(writes.parse_delete, writes.respond_delete),
}


def handler_for(method: str) -> Handler:
    """Return the handler for a method.

    Raises:
        MethodNotAllowed: streams do not have the method (405, carries `Allow`).
    """
    handler = HANDLERS.get(method)
    if handler is None:
        raise MethodNotAllowed(
            f"Streams do not answer {method[:32]}.",
            ((headers.ALLOW, METHODS),),
        )
    return handler
