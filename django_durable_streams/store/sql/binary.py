"""Values in the binary format of PostgreSQL's protocol: single values, and arrays of the values of a column.

The driver's own adaptation inspects every value of a list several times to find its type. Here the types are those of
the columns. Knows neither statements nor tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from struct import Struct, error, pack
from typing import Any, NamedTuple

from django.db import DataError

TEXT, BINARY = 0, 1


class Parameter(NamedTuple):
    """A parameter of a statement: the number of its type, its format (TEXT or BINARY), and its bytes, None for null."""

    oid: int
    format: int
    value: bytes | None


# The number of each type and of its array type, which every PostgreSQL has.
_OIDS = {
    "bigint": (20, 1016),
    "smallint": (21, 1005),
    "text": (25, 1009),
    "boolean": (16, 1000),
    "bytea": (17, 1001),
    "timestamptz": (1184, 1185),
    "jsonb": (3802, 3807),
}
_NULL = b"\xff\xff\xff\xff"
_BIGINT = Struct(">q").pack
_LENGTH = Struct(">i").pack
_ARRAY_HEAD = Struct(">5i").pack


def _bigint(value: int) -> bytes:
    try:
        return _BIGINT(value)
    except error:
        raise DataError(f"{value} is out of range.") from None


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "bigint": _bigint,
    "smallint": Struct(">h").pack,
    "text": str.encode,
    "boolean": lambda value: b"\x01" if value else b"\x00",
    "bytea": bytes,
    "jsonb": lambda value: b"\x01" + value.encode(),
}


def scalar(kind: str, value: Any) -> Parameter:
    """Return a value as a parameter.

    Raises:
        DataError, ValueError: the value is not one of this type.
    """
    oid, _ = _OIDS[kind]
    if value is None:
        return Parameter(oid, BINARY, None)
    if kind == "timestamptz":
        # As text, because the connection decides what a moment without a time zone means.
        return Parameter(oid, TEXT, value.isoformat().encode())
    return Parameter(oid, BINARY, _WRITERS[kind](value))


def array(kind: str, values: Sequence[Any]) -> Parameter:
    """Return values as one parameter, an array.

    Raises:
        DataError, ValueError: one of the values is not one of this type.
    """
    element, array = _OIDS[kind]
    if kind == "timestamptz":
        return Parameter(array, TEXT, _moments(values))
    count = len(values)
    head = _ARRAY_HEAD(1, 1, element, count, 1)
    if kind == "bigint" and None not in values:
        lengths_and_values = [8] * (2 * count)
        lengths_and_values[1::2] = values
        try:
            return Parameter(array, BINARY, head + pack(">" + "iq" * count, *lengths_and_values))
        except error:
            raise DataError("A number is out of range.") from None
    write = _WRITERS[kind]
    parts = [head]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            written = write(value)
            parts.append(_LENGTH(len(written)))
            parts.append(written)
    return Parameter(array, BINARY, b"".join(parts))


def _moments(values: Sequence[datetime | None]) -> bytes:
    return f"{{{','.join('NULL' if value is None else value.isoformat() for value in values)}}}".encode()
