"""A reader of Server-Sent Events by the letter of the HTML standard. It shares nothing with what it reads."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """An event as a browser dispatches it."""

    kind: str
    data: str
    last_id: str = field(default="", compare=False)
    """What `EventSource` sends back as `Last-Event-ID` after this event."""

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object in a control event."""
        result: dict[str, Any] = json.loads(self.data)
        return result


@dataclass
class Parsed:
    """What was in a piece of an event stream."""

    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    keep_alives: list[Event] = field(default_factory=list)
    """The events of a quiet event source for pages."""

    @property
    def data(self) -> list[str]:
        """The payloads of the data events."""
        return [event.data for event in self.events if event.kind == "data"]

    @property
    def controls(self) -> list[dict[str, Any]]:
        """The objects in the control events."""
        return [event.fields for event in self.events if event.kind == "control"]


def parse(raw: bytes) -> Parsed:
    """Return the events in an event stream. An event without an empty line behind it does not count."""
    parsed = Parsed()
    kind, lines, last_id = "message", list[str](), ""
    text = raw.decode("utf-8", errors="replace")
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        name, colon, value = line.partition(":")
        if not line:
            if lines:
                parsed.events.append(Event(kind, "\n".join(lines), last_id))
            kind, lines = "message", []
        elif not name and colon:
            parsed.comments.append(value)
        elif name == "event":
            kind = value.removeprefix(" ")
        elif name == "data":
            lines.append(value.removeprefix(" "))
        elif name == "id":
            last_id = value.removeprefix(" ")
        else:
            raise AssertionError(f"a field that nobody has asked for: {line!r}")
    return parsed


def events_of(raw: bytes) -> Parsed:
    """Return the events of an event source for pages, which may have fields `retry`."""
    parsed = parse(b"".join(line for line in raw.splitlines(keepends=True) if not line.startswith(b"retry:")))
    parsed.keep_alives = [event for event in parsed.events if event.kind == "keep-alive"]
    parsed.events = [event for event in parsed.events if event.kind != "keep-alive"]
    return parsed
