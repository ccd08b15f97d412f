"""The natural key of a stream, by which fixtures name it: its path. See `fixtures`."""

from __future__ import annotations

from typing import Any

IMPORT_FIRST = (
    "Import the streams first (`manage.py streams import`), then load the fixture again. Leave out rows whose streams "
    "had expired or were deleted when they were exported."
)


class KeyOfPath(int):
    """The primary key of a stream that was found by its path. Django's deserializer copies it into a row."""


def find_by_path(streams: Any, path: str | None) -> Any:
    """Return the stream that a fixture names.

    Args:
        streams: a queryset of streams.
        path: None for a stream that was removed.

    Raises:
        Stream.DoesNotExist: there is none. Django then saves the row without it, or says so.
    """
    stream = None if path is None else streams.filter(path=path).first()
    if stream is None:
        raise streams.model.DoesNotExist(f"There is no stream at {path!r}. {IMPORT_FIRST}")
    stream.pk = KeyOfPath(stream.pk)
    return stream
