"""The tables. `store` is the only code that writes them."""

from .chunk import Chunk
from .producer import Producer
from .stream import Stream, StreamQuerySet

__all__ = ["Chunk", "Producer", "Stream", "StreamQuerySet"]
