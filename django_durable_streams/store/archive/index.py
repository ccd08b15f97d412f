"""The index of an archive: which files it has, their sizes and their SHA-256. Knows no file itself."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ...protocol.structs import examine
from .records import VERSION, ArchiveError

FORMAT = "durable-streams-archive"
PACKS = "packs"

_PACK_NAME = re.compile(r"packs/[0-9]{6}\.streams")


class Pack(Struct, forbid_unknown_fields=True):
    """A file of records, and the place of its last stream in the order of all streams."""

    name: str
    size: Annotated[int, Meta(ge=0)]
    sha256: str
    streams: Annotated[int, Meta(ge=0)]
    last: tuple[int, str]
    """Generation and path."""


class SubscriptionFile(Struct, forbid_unknown_fields=True):
    """The file of subscriptions."""

    size: Annotated[int, Meta(ge=0)]
    sha256: str
    subscriptions: Annotated[int, Meta(ge=0)]


class Index(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What an archive has."""

    format: str
    version: int
    patterns: list[str]
    packs: list[Pack]
    newest: tuple[int, str] | None = None
    """While the export is unfinished: the place of the last stream that was there when it began."""
    subscriptions: SubscriptionFile | None = None
    """None: there are none, or the export has just begun."""

    @property
    def streams(self) -> int:
        """The number of streams."""
        return sum(pack.streams for pack in self.packs)


def parse_index(text: bytes, name: str) -> Index:
    """Return a parsed index.

    Raises:
        ArchiveError: it is no index, or one of another version.
    """
    try:
        head = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ArchiveError(f"{name} is damaged: {error}.") from error
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ArchiveError(f"{name} is not the index of an archive of streams.")
    if head.get("version") != VERSION:
        raise ArchiveError(f"{name} is of version {head.get('version')}, and this code knows version {VERSION}.")
    try:
        index = msgspec.convert(head, Index)
    except msgspec.ValidationError as error:
        raise ArchiveError(f"{name} is damaged: {error}.") from error
    if not all(_PACK_NAME.fullmatch(pack.name) for pack in index.packs):
        raise ArchiveError(f"{name} names a file outside of {PACKS}/.")
    return index


examine(globals())
