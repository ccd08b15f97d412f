"""Offsets in tests that know where something lies in a stream."""

from django_durable_streams.models import Stream
from django_durable_streams.protocol import offsets
from django_durable_streams.protocol.offsets import Offset

FIRST = 1_700_000_000_000_001
"""The generation of the first stream that is made in a test with `counted_generations`."""


def token(position: int, generation: int = FIRST) -> str:
    """Return the token of a position, of the first stream unless it says otherwise."""
    return offsets.encode(generation, position)


def offset_in(path: str, position: int) -> Offset:
    """Return the offset of a position in the stream at a path, whether or not it is so long."""
    stream = Stream.objects.filter(path=path).first()
    result = offsets.decode(stream.offset_at(position)) if stream is not None else Offset(0, position)
    assert isinstance(result, Offset)
    return result
