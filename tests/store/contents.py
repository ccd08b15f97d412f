"""What is in a stream, as a read finds it."""

from django_durable_streams.store import reading
from django_durable_streams.store.cache import SegmentCache


def read(path: str, position: int = 0, limit: int = 1 << 30) -> tuple[bytes, list[int]]:
    """Return a page from a position of a stream, without a cache: its data, and where each append in it ends."""
    info = reading.find([path], "default")[path]
    request = reading.PageRequest(info, position, limit)
    segment = reading.pages([request], SegmentCache(0), "default")[info.id, position]
    return (b"", []) if segment is None else (segment.data, list(segment.ends))
