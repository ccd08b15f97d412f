"""`manage.py streams import`."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from ...store.archive import transfer
from ...store.archive.directory import ArchiveReader
from ...subscriptions.archive import Restored, SubscriptionImport
from .base import Console, Options, Subcommand, counted
from .locations import path_argument
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
streams import backup --cursors         and go on with consumers and subscriptions where they were

With --cursors, webhooks of the archive are sent from here. Cursors that are further already stay where they are.
The archive is checked before anything is changed. Streams that are there already are left alone, if they are the same.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="SOURCE", type=Path, help="a directory or tar file of export")
        parser.add_argument("patterns", nargs="*", metavar="PATTERN", type=path_argument, help="patterns of paths")
        parser.add_argument(
            "--cursors", action="store_true", help="restore consumers, subscriptions and their cursors, too"
        )
        parser.add_argument("--dry-run", action="store_true", help="check the archive, and change nothing")

    def run(self, console: Console, options: Options) -> None:
        source, patterns = options["source"], options["patterns"]
        reader = ArchiveReader(source)
        cursors: SubscriptionImport | None = None
        if options["cursors"]:
            cursors = SubscriptionImport(reader, console.using, patterns)
            cursors.check()
        check_stream = None if cursors is None else cursors.check_stream
        if options["dry_run"]:
            with progress(console, "bytes checked") as counting:
                for checked in transfer.check_archive(reader, console.using, patterns, check_stream):
                    counting.add(checked.checked_bytes)
            count = reader.index.streams
            console.write(f"{source} is intact, and has {counted(count, 'stream')}.", streams=count)
            return
        step = transfer.Step()
        with progress(console, "streams") as counting:
            for imported in transfer.import_streams(source, console.using, patterns, check_stream):
                step = imported
                counting.add(bool(step.path))
        restored = _restore_cursors(cursors, console)
        text = f"{counted(step.done, 'stream', 'are')} restored."
        if step.skipped:
            text += f" {step.skipped:,} were there already."
        if cursors is not None:
            text += f" {restored.cursors:,} cursors of {restored.subscriptions:,} subscriptions are set."
        console.write(text, streams=step.done, skipped=step.skipped, **(restored._asdict() if cursors else {}))


def _restore_cursors(cursors: SubscriptionImport | None, console: Console) -> Restored:
    restored = Restored()
    if cursors is not None:
        with progress(console, "cursors") as counting:
            for progressed in cursors.restore():
                counting.add(progressed.cursors - restored.cursors)
                restored = progressed
    return restored
