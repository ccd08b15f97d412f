"""`manage.py streams trim`."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import suppress
from datetime import datetime, timedelta

from django.core.management.base import CommandError
from django.template.defaultfilters import filesizeformat

from ... import clock
from ...api import transactions
from ...models import Stream
from ...protocol.errors import ServiceUnavailable, StreamGone, StreamNotFound
from ...store.read.ages import position_before
from ...store.upkeep import retention
from .base import (
    Console,
    Options,
    Subcommand,
    add_dry_run,
    add_hint,
    add_include_keep_all,
    counted,
    duration,
    each_stream,
    find_keys,
    is_pattern,
    note_left_out,
)
from .locations import path_argument


class _DryRun(Exception):
    """Rolls a trim back."""


class TrimStreams(Subcommand):
    """Trims streams."""

    name = "trim"
    help = "drop the data of a stream before an offset"
    examples = """
streams trim logs/web 1764369600000000_0000000000000042
streams trim logs/web now --dry-run
streams trim 'logs/**' now --no-input
streams trim 'logs/**' --older-than 7d --no-input

The time of data is that of its chunk, so --older-than keeps up to a chunk of older data.
Nobody reads the dropped data any more, except for forks that have it. Servers delete it in the background.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "path",
            metavar="PATH",
            type=path_argument,
            help="path of a stream or, with now or --older-than, a pattern",
        )
        parser.add_argument(
            "offset", nargs="?", metavar="OFFSET", help="an offset of the stream, or now for all of its data"
        )
        parser.add_argument(
            "--older-than", metavar="DURATION", type=duration, help="drop older data, such as 7d, by whole chunks"
        )
        add_hint(
            parser,
            "--idle",
            "--older-than DURATION drops old data inside of streams. To delete whole streams without an append for so "
            "long: streams prune PATTERN --idle DURATION",
        )
        add_include_keep_all(parser)
        add_dry_run(parser)

    def run(self, console: Console, options: Options) -> None:
        path, is_dry = options["path"], options["dry_run"]
        if (options["offset"] is None) is (options["older_than"] is None):
            raise CommandError("Name an offset, or a time by --older-than DURATION.")
        moment = _moment(options["older_than"])
        if is_pattern(path) and options["offset"] not in (None, *_OF_ALL_STREAMS):
            raise CommandError("An offset belongs to one stream. With a pattern, write now, or --older-than.")
        spares = is_pattern(path) and not options["include_keep_all"] and retention.may_keep_all(console.using)
        if is_pattern(path) and not is_dry and options["interactive"]:
            number = _count(path, console.using, spares=spares)
            if number:
                console.confirm(f"Drop data of {counted(number, 'stream')} matching {path}?", options)
        left_out = 0
        for stream in each_stream([path], console.using):
            if spares and retention.keeping_all(console.using, [(stream.path or "", stream.pk)]):
                left_out += 1
                continue
            try:
                size, first_offset = _trim(stream, options, moment, console.using)
            except (StreamNotFound, StreamGone, ServiceUnavailable) as error:
                if not is_pattern(path):
                    raise
                # It was deleted meanwhile, or is damaged, which is no reason to leave the others as they are.
                console.note(f"{stream.path} was left out: {error}")
                continue
            outcome = "would be dropped" if is_dry else "are dropped"
            console.write(
                f"{stream.path}: {filesizeformat(size)} {outcome}. The first offset is {first_offset}.",
                path=stream.path,
                bytes=size,
                first_offset=first_offset,
            )
        note_left_out(console, left_out)


_OF_ALL_STREAMS = ("now", "-1")
"""Offsets that each stream has."""


def _count(pattern: str, using: str, *, spares: bool) -> int:
    """Return how many streams a pattern names, without streams whose rule of retention keeps everything."""
    number = 0
    for keys in find_keys([pattern], using):
        number += len(keys) - (len(retention.keeping_all(using, keys)) if spares else 0)
    return number


def _trim(stream: Stream, options: Options, moment: datetime | None, using: str) -> tuple[int, str]:
    """Drop data of a stream before an offset or a moment. Return the number of bytes, and the first offset."""
    # Not in the transaction, whose snapshot would be older than an append that comes meanwhile.
    info = transactions.find(stream.path, using, stream.pk)
    offset = options["offset"] if moment is None else stream.offset_at(position_before(info, moment, using))
    first_offset = ""
    with suppress(_DryRun), transactions.atomic(using):
        first_offset = stream.trim(offset)
        if options["dry_run"]:
            raise _DryRun
    return stream.first_position - info.first_position, first_offset


def _moment(seconds: int | None) -> datetime | None:
    if seconds is None:
        return None
    try:
        return clock.now() - timedelta(seconds=seconds)
    except OverflowError:
        raise CommandError("The duration of --older-than is too long.") from None
