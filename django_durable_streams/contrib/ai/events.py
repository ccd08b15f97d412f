"""The events of a chat, as its stream stores them: one event model for all sources and all dialects.

A source yields `Text`, `Reasoning`, `ToolInput`, `ToolCall`, `ToolResult`, `Data` and `Usage`. It may end with `Finish`
or `Failed`. The run adds `Start` and the one event that ends it. `Message` and `Rewind` are the user's turns.

Knows no table, no client and no provider.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from ...protocol.structs import examine

FinishReason = Literal["stop", "length", "content-filter", "tool-calls", "other"]
FINISH_REASONS: tuple[str, ...] = get_args(FinishReason)


class TextPart(msgspec.Struct, tag="text", tag_field="type"):
    """Text of a message."""

    text: str


class ReasoningPart(msgspec.Struct, tag="reasoning", tag_field="type"):
    """What the model has written before its answer."""

    text: str


class FilePart(msgspec.Struct, tag="file", tag_field="type", omit_defaults=True):
    """A file of a message, by its URL, which may be a `data:` URL."""

    url: str
    media_type: str = ""
    name: str = ""


class ToolPart(msgspec.Struct, tag="tool", tag_field="type", omit_defaults=True):
    """A call of a tool and, once it is there, its result or its error."""

    id: str
    name: str
    input: Any = None
    output: Any = None
    error: str = ""
    is_done: bool = False


class DataPart(msgspec.Struct, tag="data", tag_field="type", omit_defaults=True):
    """Data of the project, for the page."""

    name: str
    data: Any = None
    id: str = ""


Part = TextPart | ReasoningPart | FilePart | ToolPart | DataPart


class Event(msgspec.Struct, tag_field="type", frozen=True, omit_defaults=True):
    """The base class of all events."""


class Message(Event, tag="message", frozen=True, omit_defaults=True):
    """A whole message, mostly the user's. A message with the id of an earlier one replaces it."""

    id: str
    role: Literal["user", "assistant", "system"] = "user"
    parts: list[Part] = []


class Rewind(Event, tag="rewind", frozen=True, omit_defaults=True):
    """Messages do not count any more, because the user has edited one, or wants another answer.

    Either `before` is the id of the first of them, or `after` that of the last message that still counts.
    """

    before: str = ""
    after: str = ""


class Start(Event, tag="start", frozen=True, omit_defaults=True):
    """A run begins to write a message of the assistant."""

    run: str
    message: str


class Text(Event, tag="text", frozen=True, omit_defaults=True):
    """The next piece of the answer's text."""

    text: str


class Reasoning(Event, tag="reasoning", frozen=True, omit_defaults=True):
    """The next piece of the model's reasoning."""

    text: str


class ToolInput(Event, tag="tool-input", frozen=True, omit_defaults=True):
    """The next piece of a tool call's arguments, as JSON text. The whole call follows as `ToolCall`."""

    id: str
    name: str
    text: str = ""


class ToolCall(Event, tag="tool-call", frozen=True, omit_defaults=True):
    """The model calls a tool. `input` is any JSON value."""

    id: str
    name: str
    input: Any = None


class ToolResult(Event, tag="tool-result", frozen=True, omit_defaults=True):
    """The result of a tool call, or the error for which it has none."""

    id: str
    output: Any = None
    error: str = ""


class Data(Event, tag="data", frozen=True, omit_defaults=True):
    """Data of the project for the page. Data with the same name and id replaces earlier data."""

    name: str
    data: Any = None
    id: str = ""


class Usage(Event, tag="usage", frozen=True, omit_defaults=True):
    """The tokens that the answer has taken."""

    input_tokens: int = 0
    output_tokens: int = 0


class Finish(Event, tag="finish", frozen=True, omit_defaults=True):
    """The answer is complete."""

    run: str = ""
    reason: FinishReason = "stop"


class Stopped(Event, tag="stopped", frozen=True, omit_defaults=True):
    """The answer was stopped."""

    run: str = ""


class Failed(Event, tag="failed", frozen=True, omit_defaults=True):
    """The answer has failed. Readers see `error`."""

    run: str = ""
    error: str = "The answer failed."


Piece = Text | Reasoning | ToolInput | ToolCall | ToolResult | Data | Usage
"""What a source yields in the middle of an answer."""

End = Finish | Stopped | Failed
"""What ends a run. There is exactly one for each run."""

ENDS = (Finish, Stopped, Failed)
"""The classes of `End`, for `isinstance`, which takes a tuple of classes in far less time than a new union."""

TEXTS = (Text, Reasoning)
"""The classes of most events."""

AnyEvent = Message | Rewind | Start | Piece | End

FROM_SOURCES: tuple[type[Event], ...] = (*get_args(Piece), Finish, Failed)
"""The events that a source may yield."""


def encode(event: Event) -> Any:
    """Return an event as the JSON value that a stream stores.

    Raises:
        TypeError: data of the project cannot be JSON.
    """
    return msgspec.to_builtins(event, str_keys=True)


class _Stored(msgspec.Struct):
    """Holds an event. msgspec keeps what it knows of a struct, and would examine a union anew with each call."""

    event: AnyEvent


def check_types(event: Event) -> None:
    """Check that the fields of an event have the types that its readers expect.

    Raises:
        TypeError: one has another type. The event would be stored, and no reader could decode it.
    """
    try:
        msgspec.convert({"event": encode(event)}, _Stored)
    except msgspec.ValidationError as error:
        raise TypeError(f"A source has yielded an invalid {type(event).__name__}: {error}") from error


def encode_line(event: Event) -> bytes | None:
    """Return text of an answer as a line of a JSON stream, which takes a twentieth of the time of `encode` and `json`.

    None: `encode` has to make a value of the event, because the event is no text or has an unpaired surrogate.
    """
    if not isinstance(event, TEXTS) or type(event.text) is not str:
        return None
    try:
        return msgspec.json.encode(event) + b"\n"
    except UnicodeEncodeError:
        return None


def decode(value: object) -> AnyEvent | None:
    """Return the event of a stored JSON value, or None if it is none that this version knows."""
    # Most events are texts, and a struct converts them in ten times as much time.
    if type(value) is dict and value.get("type") == "text" and len(value) == 2:
        text = value.get("text")
        if type(text) is str:
            return Text(text)
    try:
        return msgspec.convert({"event": value}, _Stored).event
    except msgspec.ValidationError:
        return None


def ends(event: Event | None, run: str) -> bool:
    """Return whether an event ends a run."""
    return isinstance(event, ENDS) and event.run == run


examine(globals())
