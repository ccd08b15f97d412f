"""`manage.py streams close`."""

from __future__ import annotations

from argparse import ArgumentParser

from ...protocol.errors import StreamGone, StreamNotFound
from .base import Console, Options, Subcommand, add_paths, each_stream, is_pattern


class Close(Subcommand):
    """Closes streams."""

    name = "close"
    help = "close streams: they take no more data, and readers learn that they are complete"
    examples = """
streams close chat/42
streams close 'chat/**' --dry-run
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_paths(parser)
        parser.add_argument("--dry-run", action="store_true", help="print which streams would be closed")

    def run(self, console: Console, options: Options) -> None:
        # What ends meanwhile is no error for a pattern.
        passing = (StreamNotFound, StreamGone) if all(map(is_pattern, options["paths"])) else ()
        for stream in each_stream(options["paths"], console.using):
            was_closed = stream.closed
            try:
                if not options["dry_run"]:
                    stream.close()
            except passing:
                continue
            outcome = "was closed" if was_closed else "would be closed" if options["dry_run"] else "is closed"
            console.write(f"{stream.path} {outcome}.", path=stream.path, closed=stream.closed)
