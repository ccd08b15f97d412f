"""A parser of Server-Sent Events that works as a browser does."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """An event: its kind, `data` or `control`, its text, and the id that its stream has after it."""

    kind: str
    data: str
    id: str = field(default="", compare=False)

    def json(self) -> Any:
        """Return the text as JSON: the messages of a JSON stream, or the fields of a control event."""
        return json.loads(self.data)


class EventParser:
    """Parses an event stream in pieces. Lines must end with LF, as those of this package do."""

    def __init__(self) -> None:
        self._rest = b""
        self._events: deque[Event] = deque()
        self._last_id = ""

    def feed(self, piece: bytes) -> None:
        """Parse the next piece."""
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        for block in blocks:
            kind, lines = "message", []
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "event":
                    kind = value
                elif name == "data":
                    lines.append(value)
                elif name == "id":
                    self._last_id = value
            if lines:  # a comment has none
                self._events.append(Event(kind, "\n".join(lines), self._last_id))

    def next(self) -> Event | None:
        """Return the next complete event, or None."""
        return self._events.popleft() if self._events else None
