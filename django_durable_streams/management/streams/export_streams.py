"""`manage.py streams export`."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from ...store.archive import transfer
from .base import Console, Options, Subcommand, counted
from .locations import path_argument
from .progress import progress


class Export(Subcommand):
    """Writes streams to an archive."""

    name = "export"
    help = "write streams to a directory or tar file, from which import restores them exactly"
    examples = """
streams export backup                   all streams, to a new directory
streams export chats.tar 'chat/**'      streams that match a pattern, and the sources of forks among them
streams export backup                   after an interruption: go on where it stopped

Each stream is as it was at one moment. Offsets, producers and forks stay as they are, and what closes or ends a stream.
Consumers, subscriptions and their cursors are in the archive, without keys and leases. "import --cursors" restores
them.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("target", metavar="TARGET", type=Path, help="a directory, or a file that ends with .tar")
        parser.add_argument("patterns", nargs="*", metavar="PATTERN", type=path_argument, help="patterns of paths")

    def run(self, console: Console, options: Options) -> None:
        step = transfer.Step()
        with progress(console, "streams") as counting:
            for exported in transfer.export_streams(options["target"], console.using, options["patterns"]):
                step = exported
                counting.add(bool(step.path))
        skipped = f" {step.skipped:,} were deleted meanwhile." if step.skipped else ""
        console.write(
            f"{counted(step.done, 'stream', 'are')} in {options['target']}.{skipped}",
            target=str(options["target"]),
            streams=step.done,
            skipped=step.skipped,
        )
