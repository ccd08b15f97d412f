"""The content of a stream, as a read returns it."""

from django_durable_streams.store.read import log_reader
from django_durable_streams.store.read.segment_cache import SegmentCache


def read(path: str, position: int = 0, limit: int = 1 << 30) -> tuple[bytes, list[int]]:
    """Return a page from a position of a stream, without a cache: its data, and where each append in it ends."""
    info = log_reader.find([path], "default")[path]
    request = log_reader.PageRequest(info, position, limit)  # type: ignore[arg-type]
    segment = log_reader.pages([request], SegmentCache(0), "default")[info.id, position]  # type: ignore[union-attr]
    return (b"", []) if segment is None else (segment.data, list(segment.ends))
