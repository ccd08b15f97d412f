"""Batches of messages as handlers get them, and the upcasters that bring old messages into today's form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...protocol import values

Upcaster = Callable[[Any], Any]

MessageType = str | Callable[[Any], Any]
"""The field of a JSON object that has the type of a message, or a function that returns it."""


class StoredMessage(NamedTuple):
    """A message as it was read. Its value is decoded anew for each attempt, because handlers may change values."""

    raw: bytes
    """Its bytes, in JSON mode without the line feed."""
    end: int
    """The position after it."""
    offset: str
    """The offset of this position."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a batch."""

    value: Any
    """The JSON value; text for `text/*`; else bytes."""
    offset: str
    """The offset after the message."""
    stream: str
    """The path of its stream."""

    @property
    def key(self) -> tuple[str, str]:
        """The idempotency key, for effects outside of the database: no other message has it, and retries have it too.

        A new stream at the path of a deleted one has other offsets.
        """
        return self.stream, self.offset


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive messages of one stream. Iterates over them as `Message`."""

    stream: str
    """The path of the stream."""
    content_type: str
    messages: list[Any]
    """The values of the messages."""
    offsets: list[str]
    """The offset after each message."""
    using: str
    """Alias of the database whose transaction has the cursor."""

    def __iter__(self) -> Iterator[Message]:
        for value, offset in zip(self.messages, self.offsets, strict=True):
            yield Message(value, offset, self.stream)

    def __len__(self) -> int:
        return len(self.messages)


def upcast(value: Any, upcasters: Mapping[Any, Upcaster], message_type: MessageType) -> Any:
    """Return a message in today's form: upcasters are called until the type does not change any more.

    Raises:
        ValueError: upcasters lead in a circle.
    """
    seen_types: list[Any] = []
    while True:
        name = _type_of(value, message_type)
        function = _upcaster_of(name, upcasters)
        if function is None or name in seen_types[-1:]:
            return value
        if name in seen_types:
            raise ValueError(f"The upcasters lead in a circle: {' -> '.join(map(str, [*seen_types, name]))}.")
        seen_types.append(name)
        value = function(value)


def _type_of(value: Any, message_type: MessageType) -> Any:
    if callable(message_type):
        return message_type(value)
    return value.get(message_type) if isinstance(value, Mapping) else None


def _upcaster_of(name: Any, upcasters: Mapping[Any, Upcaster]) -> Upcaster | None:
    try:
        return upcasters.get(name)
    except TypeError:  # a list or an object, which is no type
        return None


def decode_all(
    stored: Sequence[StoredMessage],
    content_type: str,
    upcasters: Mapping[Any, Upcaster],
    message_type: MessageType,
) -> list[Any]:
    """Return the values of messages in today's form, as new objects."""
    decoded = [values.decode(content_type, message.raw) for message in stored]
    return [upcast(value, upcasters, message_type) for value in decoded] if upcasters else decoded
