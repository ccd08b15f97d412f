"""The numbers of requests in this process: by entry point, operation and status, errors, and exits of the fast path.

An entry point counts a request when it sends the response, or begins an event stream. Knows no response and no header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..protocol.errors import DurableStreamsError
from ..protocol.messages import Request
from ..runtime import tracing
from ..runtime.counting import Counts

OPERATIONS = {
    "GET": "read",
    "HEAD": "head",
    "POST": "append",
    "PUT": "create",
    "DELETE": "delete",
    "OPTIONS": "options",
}
"""The operations of methods. Requests name theirs where it is another one: `long_poll`, `sse` and `control`."""

OTHER = "other"
"""Methods that streams do not have, and requests that could not be parsed."""

Key = tuple[str, int]
"""An operation, or one of the methods above, and a status. Clients must not choose keys, because each is kept."""

fast_path: Counts[Key] = Counts()
asgi: Counts[Key] = Counts()
urls: Counts[Key] = Counts()
websocket: Counts[Key] = Counts()

fast_path_exits: Counts[str] = Counts()
"""Requests that a connection of the fast path has left to uvicorn, by reason."""

_errors: Counts[type[DurableStreamsError]] = Counts()


def count(counts: Counts[Key], request: Request | None, status: int) -> None:
    """Count a request, and end its span. None: it could not be parsed."""
    operation = OTHER if request is None else request.operation or OPERATIONS.get(request.method, OTHER)
    counts.here()[operation, status] += 1
    if request is not None and tracing.tracer is not None:
        tracing.end(request, status)


def count_error(error: DurableStreamsError) -> None:
    """Count an error that a client gets."""
    _errors.here()[type(error)] += 1


@dataclass(frozen=True, slots=True)
class RequestStats:
    """The requests of this process, at one moment. Counts begin with the process.

    Attributes:
        requests: by entry point (`fast_path`, `asgi`, `urls`, `websocket`), operation and status.
        errors: by their stable names, such as `stream-not-found`.
        fast_path_exits: requests that the fast path has left to uvicorn, by reason.
    """

    requests: Mapping[tuple[str, str, int], int]
    errors: Mapping[str, int]
    fast_path_exits: Mapping[str, int]


def stats() -> RequestStats:
    """Return all numbers. Safe to call from any thread."""
    requests: dict[tuple[str, str, int], int] = {}
    for entry_point, counts in (("fast_path", fast_path), ("asgi", asgi), ("urls", urls), ("websocket", websocket)):
        for (name, status), number in counts.totals().items():
            key = entry_point, OPERATIONS.get(name, name), status
            requests[key] = requests.get(key, 0) + number
    errors: dict[str, int] = {}
    for kind, number in _errors.totals().items():
        errors[kind.code()] = errors.get(kind.code(), 0) + number
    exits = {str(reason): number for reason, number in fast_path_exits.totals().items()}
    return RequestStats(requests, errors, exits)
