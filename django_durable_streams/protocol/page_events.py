"""Server-Sent Events for pages: one event for each message, which a browser's `EventSource` hands to the page.

They are no part of the protocol, whose events are in `sse`. Each event has an id: the offset after its message. A
client that reconnects sends its last id, and goes on at the next message, also inside an append.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from . import sse
from .errors import DurableStreamsError, InvalidParameter

END_ID = "end"
"""The id of the last event. A client that sends it back was told that nothing follows."""

REFUSALS = "refusals"
"""The query parameter of clients that try again after a status such as 403. `event` lets them get the last event."""

LONG_RETRY = 30.0
"""Seconds of `retry` from which scripts are told of it, well below the 45 after which they make a new connection."""

_LASTING = frozenset({400, 401, 403, 404, 410, 501})
"""The statuses of refusals that another attempt does not change."""

_FORBIDDEN = frozenset("\r\n\0")


@dataclass(frozen=True, slots=True)
class PageEvent:
    """An event for a page.

    Args:
        data: its text. It may have several lines.
        name: the name by which a page listens for it. Without a name, `onmessage` gets it.

    Raises:
        ValueError: the name has a line break, a null character, or white space around it.
    """

    data: str
    name: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)


def check_name(name: str) -> str:
    """Return the name of an event if it can be one. Clients strip white space, and so would take it for another name.

    Raises:
        ValueError: it has a line break, a null character, or white space around it.
    """
    if _FORBIDDEN.intersection(name):
        raise ValueError(f"An event's name cannot have line breaks or null characters: {name!r}.")
    if name != name.strip():
        raise ValueError(f"An event's name cannot have white space around it: {name!r}.")
    return name


def encode(event: PageEvent, event_id: str) -> bytes:
    """Return an event as it is sent. Half of a surrogate pair in its text becomes a question mark.

    The id is the last line. Some clients take an id as soon as they see it, and so would miss an event that is cut off.
    """
    name = b"event:" + event.name.encode(errors="replace") + b"\n" if event.name else b""
    return name + sse.data_field(event.data.encode(errors="replace")) + sse.event_id(event_id) + b"\n"


def encode_keep_alive(event_id: str | None) -> bytes:
    """Return the event of a quiet response: traffic for proxies, and a sign for scripts, which see no comments.

    Args:
        event_id: an id that the client does not have yet.
    """
    return b"event:keep-alive\ndata:\n" + (sse.event_id(event_id) if event_id else b"") + b"\n"


def encode_retry(seconds: float) -> bytes:
    """Return the block that tells a client how long to wait before it reconnects.

    Scripts do not see it. One that makes a new `EventSource` after a silence would not wait as long as the browser
    does, so a keep-alive tells it of a long time.
    """
    block = b"retry:%d\n\n" % round(seconds * 1000)
    return block if seconds < LONG_RETRY else block + b"event:keep-alive\ndata:%d\n\n" % round(seconds)


def encode_closed(name: str, next_offset: str) -> bytes:
    """Return the last event of a closed stream."""
    return _encode_end(name, {"reason": "closed", "next_offset": next_offset})


def encode_refusal(name: str, error: DurableStreamsError) -> bytes:
    """Return the last event for a client that is refused."""
    return _encode_end(name, {"reason": error.code(), "status": error.status, "detail": error.detail})


def _encode_end(name: str, fields: dict[str, object]) -> bytes:
    return encode(PageEvent(msgspec.json.encode(fields).decode(), name), END_ID)


def wants_refusal_event(parameter: str | None, error: DurableStreamsError) -> bool:
    """Return whether a client gets a refusal as the last event of a response, and not as a status.

    Args:
        parameter: the query parameter `refusals`.
        error: the refusal.

    Raises:
        InvalidParameter: the parameter has an unknown value.
    """
    if parameter not in (None, "event"):
        raise InvalidParameter(f"The parameter {REFUSALS} must be event.")
    return parameter == "event" and error.status in _LASTING
