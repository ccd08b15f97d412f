"""The options of event sources, and their checks. Knows no stream and no request."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypedDict

from ...protocol import arguments, page_events

DEFAULT_RETRY_SECONDS = 2.0

Render = str | Callable[..., Any]


class EventSourceOptions(TypedDict, total=False):
    """The options of `event_source`, `EventView` and the methods of `Stream`."""

    render: Render | None
    """What makes the data of an event: the name of a template, or a function of the message. By default JSON messages
    are sent as JSON, texts as they are, and other data in base64.

    A template gets `message` and `stream`. A function gets the message, and the stream if it takes a second argument.
    It returns a text, a `PageEvent`, None for no event, or another value, which is sent as JSON. It runs in a thread,
    once for all readers. So it must be the same object each time: a function of a module, not one that a view makes."""

    event: str | Callable[..., str | None]
    """The name of the events, or a function that gets what `render` gets. By default they have no name, so `onmessage`
    gets them."""

    per_request: bool
    """Whether the result depends on the request. Then each reader has its own. A template gets the `request` and the
    context processors, and a function may take the request as its third argument."""

    end_event: str
    """The name of the event after the last message of a closed stream: `end`. No message can have it."""

    offset: str
    """Where a client begins that names no offset: `-1`, which is the start, `now`, or an offset of the stream."""

    retry: float
    """Seconds that a browser waits before it reconnects: 2 by default."""

    check_permissions: bool
    """Whether `PERMISSION_CLASSES` decide who may read, at the beginning and during the response. Without this check
    the view decides, and a response lasts for SSE_DURATION at most."""


@dataclass(frozen=True, slots=True)
class EventSourceSettings:
    """The options of one event source with their defaults, see `EventSourceOptions`.

    Raises:
        TypeError, ValueError, InvalidOffset: an option has an invalid value.
    """

    render: Render | None = None
    event: str | Callable[..., str | None] = ""
    per_request: bool = False
    end_event: str = "end"
    offset: str = "-1"
    retry: float = DEFAULT_RETRY_SECONDS
    check_permissions: bool = True

    def __post_init__(self) -> None:
        if not (self.render is None or isinstance(self.render, str) or callable(self.render)):
            raise TypeError("render is the name of a template, a function, or None.")
        if not (isinstance(self.event, str) or callable(self.event)):
            raise TypeError("event is the name of events, or a function that returns it.")
        if not self.end_event:
            raise ValueError("end_event is the name of an event. Without it, some pages would reconnect for ever.")
        page_events.check_name(self.end_event)
        if isinstance(self.event, str) and page_events.check_name(self.event) == self.end_event:
            raise ValueError(f"event and end_event are both {self.event!r}. Pages would stop at the first message.")
        if not (isinstance(self.retry, int | float) and 0 <= self.retry < math.inf):
            raise ValueError("retry is a number of seconds, 0 or more.")
        for function in (self.render, self.event):
            if callable(function):
                count_arguments(function, per_request=self.per_request)
        arguments.offset(self.offset)
        hash(self.key)  # raises TypeError for a function that readers cannot share

    @property
    def key(self) -> Hashable:
        """All that an event depends on besides its message."""
        return self.render, self.event, self.end_event


def count_arguments(function: Callable[..., Any], *, per_request: bool) -> int:
    """Return how many of message, stream and request a function takes: its arguments without a default.

    Raises:
        TypeError: it takes more than it can get.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a built-in function without a signature
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(one.kind in positional and one.default is one.empty for one in parameters)
    if count > (3 if per_request else 2):
        hint = "" if per_request else " With per_request=True it may also take the request."
        raise TypeError(f"{function!r} takes {count} arguments. It gets the message, and the stream.{hint}")
    return max(count, 1)
