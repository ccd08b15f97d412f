"""What the dialects share: a translator turns the events of a run, in their order, into the client's chunks.

Translation is deterministic. So every process makes the same chunks of the same events, and the number of chunks before
a place says where a reader continues.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import msgspec

from ..events import AnyEvent

Chunk = dict[str, Any]


class Translator(ABC):
    """Translates the events of one run, or of a whole chat, from the first one on."""

    @abstractmethod
    def translate(self, event: AnyEvent) -> list[Chunk]:
        """Return the chunks for the next event."""


def json_text(value: object) -> str:
    """Return a value as JSON text."""
    return msgspec.json.encode(value).decode()
