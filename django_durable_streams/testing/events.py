"""Server-Sent Events, as a browser takes them apart."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """An event: its kind, `data` or `control`, and its text."""

    kind: str
    data: str

    def json(self) -> Any:
        """Return the text as JSON: the messages of a JSON stream, or what a control event says."""
        return json.loads(self.data)


class EventParser:
    """Takes an event stream in pieces, and gives its events. Lines end with LF, as this package ends them."""

    def __init__(self) -> None:
        self._rest = b""
        self._events: deque[Event] = deque()

    def feed(self, piece: bytes) -> None:
        """Take in the next piece."""
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
            if lines:  # a comment has none
                self._events.append(Event(kind, "\n".join(lines)))

    def next(self) -> Event | None:
        """Return the next event that is complete."""
        return self._events.popleft() if self._events else None
