"""`manage.py streams trim`."""

from __future__ import annotations

from argparse import ArgumentParser

from django.template.defaultfilters import filesizeformat

from ...api import transactions
from .base import Console, Options, Subcommand, add_dry_run, each_stream, is_pattern, path_argument


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

Nobody reads the dropped data any more, except for forks that have it. Servers delete it in the background.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", metavar="PATH", type=path_argument, help="path of a stream or, with now, a pattern")
        parser.add_argument("offset", metavar="OFFSET", help="an offset of the stream, or now for all of its data")
        add_dry_run(parser)

    def run(self, console: Console, options: Options) -> None:
        path, is_dry = options["path"], options["dry_run"]
        if is_pattern(path) and not is_dry:
            console.confirm(f"Drop the data of all streams that match {path}?", options)
        for stream in each_stream([path], console.using):
            before = stream.first_position
            try:
                with transactions.atomic(console.using):
                    first_offset = stream.trim(options["offset"])
                    if is_dry:
                        raise _DryRun
            except _DryRun:
                pass
            size = stream.first_position - before
            outcome = "would be dropped" if is_dry else "are dropped"
            console.write(
                f"{stream.path}: {filesizeformat(size)} {outcome}. The first offset is {first_offset}.",
                path=stream.path,
                bytes=size,
                first_offset=first_offset,
            )
