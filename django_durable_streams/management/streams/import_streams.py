"""`manage.py streams import`."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from ...store.archive import transfer
from ...store.archive.directory import ArchiveReader
from .base import Console, Options, Subcommand, path_argument
from .progress import progress


class Import(Subcommand):
    """Restores streams from an archive."""

    name = "import"
    help = "restore streams from an archive of export, into any database"
    examples = """
streams import backup --dry-run         check the archive, and that its paths are free
streams import backup
streams import chats.tar 'chat/42/**'
streams import backup                   after an interruption: go on where it stopped

The archive is checked before anything is changed. Streams that are there already are left alone, if they are the same.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="SOURCE", type=Path, help="a directory or tar file of export")
        parser.add_argument("patterns", nargs="*", metavar="PATTERN", type=path_argument, help="patterns of paths")
        parser.add_argument("--dry-run", action="store_true", help="check the archive, and change nothing")

    def run(self, console: Console, options: Options) -> None:
        source, patterns = options["source"], options["patterns"]
        step = transfer.Step()
        if options["dry_run"]:
            reader = ArchiveReader(source)
            with progress(console, "bytes checked") as counting:
                for checked in transfer.check_archive(reader, console.using, patterns):
                    counting.add(checked.checked_bytes)
            count = reader.index.streams
            console.write(f"{source} is intact, and has {count:,} streams.", streams=count)
            return
        with progress(console, "streams") as counting:
            for imported in transfer.import_streams(source, console.using, patterns):
                step = imported
                counting.add(bool(step.path))
        skipped = f" {step.skipped:,} were there already." if step.skipped else ""
        console.write(f"{step.done:,} streams are restored.{skipped}", streams=step.done, skipped=step.skipped)
