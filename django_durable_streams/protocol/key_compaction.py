"""Rules of key compaction, and the keys of messages of the State Protocol (packages/state/STATE-PROTOCOL.md).

A change message has a type, a key and an operation. It replaces all earlier messages with its type and key. Every other
message, such as a control message, replaces nothing and is never removed. Knows no stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from .arguments import MAX_TTL_SECONDS
from .errors import InvalidParameter
from .globs import Glob
from .offsets import MAX_NUMBER
from .retention import glob_of

MIN_TOMBSTONES = 600
"""Seconds for which a delete is kept at least. HTTP caches may have earlier data for minutes (`caching.PUBLIC`)."""

DIGEST_BYTES = 16


class KeyCompactionRules(NamedTuple):
    """What key compaction leaves alone.

    Attributes:
        delay: seconds for which a message stays, whatever follows it.
        newest_bytes: the newest bytes of a stream, which stay as well.
        tombstones: seconds for which a delete stays, after the messages that it deletes are gone.
    """

    delay: int = 60
    newest_bytes: int = 0
    tombstones: int = 86_400


_LEAST = KeyCompactionRules(0, 0, MIN_TOMBSTONES)
_MOST = KeyCompactionRules(MAX_TTL_SECONDS, MAX_NUMBER, MAX_TTL_SECONDS)


class KeyCompactionPatterns:
    """The rules of paths, by pattern. Of several patterns that match, the first one counts.

    Args:
        setting: the rules of each pattern, as a dict with some of `delay`, `newest_bytes` and `tombstones`.

    Raises:
        DurableStreamsError: a pattern or a rule is invalid. The message names it.
    """

    def __init__(self, setting: Mapping[str, Any]) -> None:
        self.patterns: list[tuple[Glob, KeyCompactionRules]] = [
            (glob_of(text), _rules_of(text, value)) for text, value in setting.items()
        ]

    def find(self, path: str) -> KeyCompactionRules | None:
        """Return the rules of a path. None: no pattern matches, so all messages stay."""
        return next((rules for pattern, rules in self.patterns if pattern.matches(path)), None)

    def max_age(self) -> float | None:
        """Return the seconds for which a process may cache data, so that no cached value outlives its delete.

        An HTTP cache may show the data for some minutes more (`caching.PUBLIC`), which has to fit into `tombstones`.
        """
        return min((rules.tombstones / 3 for _, rules in self.patterns), default=None)


def _rules_of(pattern: str, value: Any) -> KeyCompactionRules:
    if not isinstance(value, Mapping):
        raise InvalidParameter(f"The rules of {pattern!r} must be a dict such as {{'delay': 60}}, not {value!r}.")
    unknown = [key for key in value if key not in KeyCompactionRules._fields]
    if unknown:
        known = ", ".join(KeyCompactionRules._fields)
        raise InvalidParameter(f"The rules of {pattern!r} have an unknown key: {unknown[0]!r}. Known keys: {known}.")
    for name, number in value.items():
        least, most = getattr(_LEAST, name), getattr(_MOST, name)
        if type(number) is not int or not least <= number <= most:
            raise InvalidParameter(
                f"The rules of {pattern!r}: {name} must be a whole number from {least} to {most}, not {number!r}."
            )
    return KeyCompactionRules(**value)


_Name = Annotated[str, Meta(min_length=1)]


class _Headers(Struct):
    operation: Literal["insert", "update", "upsert", "delete"]


class _Change(Struct):
    type: _Name
    key: _Name
    headers: _Headers
    value: msgspec.Raw | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_Change)


class Change(NamedTuple):
    """A change message: a digest of its type and key, and whether it is a delete."""

    digest: bytes
    is_delete: bool


def change_of(message: bytes) -> Change | None:
    """Return what a stored JSON message changes. None: it is no valid change message."""
    try:
        change = _decoder.decode(message)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    is_delete = change.headers.operation == "delete"
    if change.value is UNSET and not is_delete:
        return None
    name = f"{len(change.type)}:{change.type}{change.key}"
    return Change(blake2b(name.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest(), is_delete)
