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
from .offsets import MAX_NUMBER
from .pattern_rules import PatternRules

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


def key_compaction_patterns(setting: Mapping[str, Any]) -> PatternRules[KeyCompactionRules]:
    """Return the rules of paths by the setting `KEY_COMPACTION`.

    Raises:
        DurableStreamsError: a pattern or a rule is invalid. The message names it.
    """
    return PatternRules(setting, _checked, KeyCompactionRules._fields, "{'delay': 60}")


def _checked(**values: Any) -> KeyCompactionRules:
    for name, number in values.items():
        least, most = getattr(_LEAST, name), getattr(_MOST, name)
        if type(number) is not int or not least <= number <= most:
            raise InvalidParameter(f"{name} must be a whole number from {least} to {most}, not {number!r}.")
    return KeyCompactionRules(**values)


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
