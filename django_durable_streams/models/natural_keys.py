"""The natural key of a stream, by which fixtures name it: its path. See `fixtures`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from django.core.serializers.base import DeserializationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    _BigAutoField = models.BigAutoField[Any, Any]
else:
    _BigAutoField = models.BigAutoField

IMPORT_FIRST = (
    "Import the streams first (`manage.py streams import`), then load the fixture again. Leave out rows whose streams "
    "had expired or were deleted when they were exported."
)
BY_NUMBER = "names a stream by its number ({}), which is another stream's in another database."
DUMP_AGAIN = "Dump the rows again, with their paths: `manage.py dumpdata --natural-foreign`."


class KeyOfPath(int):
    """The primary key of a stream that was found by its path. Django's deserializer copies it into a row."""


class _NumberOfFixture(int):
    """The primary key of a stream as it was in the database of a fixture."""


class StreamKey(_BigAutoField):
    """The primary key of a stream. By its fields, Django's deserializers store no number that they have read.

    Foreign keys, many-to-many fields and the rows of their tables read and store their numbers by this field. It cannot
    refuse them where they are read: `loaddata --exclude` reads rows and leaves them out.
    """

    def to_python(self, value: Any) -> Any:
        """Return an integer, which is marked if Django reads a fixture."""
        number = super().to_python(value)
        return _NumberOfFixture(number) if number is not None and _is_fixture_read() else number

    def get_prep_value(self, value: Any) -> Any:
        """Return the integer that a query compares with or stores, still marked."""
        return value if isinstance(value, _NumberOfFixture) else super().get_prep_value(value)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        """Return the integer for the driver. Queries may have one of a fixture: caches of rows are read like one."""
        number = super().get_db_prep_value(value, connection, prepared)
        return int(number) if isinstance(number, _NumberOfFixture) else number

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return the integer to store.

        Raises:
            DeserializationError: it was read from a fixture, and Django's deserializer stores it. The project may store
                what it has deserialized in the same database, as from a cache.
        """
        if isinstance(value, _NumberOfFixture) and _is_fixture_stored():
            raise DeserializationError(f"A row {BY_NUMBER.format(value)} {DUMP_AGAIN}")
        return super().get_db_prep_save(value, connection)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.BigAutoField", args, kwargs


def _is_fixture_read() -> bool:
    """Return whether one of Django's deserializers reads a value, by a field or by foreign keys that end there."""
    frame = sys._getframe(2)
    while frame.f_back is not None and _module_of(frame).startswith("django.db.models."):
        frame = frame.f_back
    return _module_of(frame).startswith("django.core.serializers.")


def _is_fixture_stored() -> bool:
    """Return whether one of Django's deserializers stores a row."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _module_of(frame) == "django.core.serializers.base":
            return True
        frame = frame.f_back
    return False


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def natural_key(path: str | None) -> tuple[str]:
    """Return the natural key of a stream with a path, or None for one that was removed.

    XML drops spaces at the ends of a text, and has `None` for None. A path neither is empty nor has a slash at its end.
    """
    path = path or ""
    return (path if path == path.strip() else f"/{path}/",)


def find_by_path(streams: Any, key: str | None) -> Any:
    """Return the stream that a fixture names.

    Args:
        streams: a queryset of streams.
        key: the natural key. Empty or None for a stream that was removed.

    Raises:
        Stream.DoesNotExist: there is none. Django then saves the row without it, or says so.
    """
    path = str(key or "").strip("/")
    stream = streams.filter(path=path).first() if path else None
    if stream is None:
        raise streams.model.DoesNotExist(f"There is no stream at {path!r}. {IMPORT_FIRST}")
    stream.pk = KeyOfPath(stream.pk)
    return stream
