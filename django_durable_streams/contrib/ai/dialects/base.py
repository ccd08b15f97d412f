"""What the dialects share: a translator turns the events of a run, in their order, into the client's chunks.

Translation is deterministic. So every process makes the same chunks of the same events, and the number of chunks before
a place says where a reader continues.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from ..events import AnyEvent

Chunk = dict[str, Any]

REPLACED: Chunk = {}
"""Stands for a snapshot that a later one of the same page replaces. It counts as a chunk, and no client gets it."""


class Translator(ABC):
    """Translates the events of one run, or of a whole chat, from the first one on."""

    snapshot: ClassVar[str] = ""
    """The type of chunks that replace all chunks before them. Empty: there are none."""

    @abstractmethod
    def translate(self, event: AnyEvent) -> list[Chunk]:
        """Return the chunks for the next event."""

    def translate_page(self, events: Sequence[AnyEvent | None]) -> Iterator[list[Chunk]]:
        """Yield the chunks for each of the next events. None stands for an event that this version does not know."""
        for event in events:
            yield [] if event is None else self.translate(event)


def json_bytes(value: object) -> bytes:
    """Return a value as JSON. Half of a surrogate pair is escaped: the next piece of a text may have the other one."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def json_text(value: object) -> str:
    """Return a value as JSON text."""
    return json_bytes(value).decode()
