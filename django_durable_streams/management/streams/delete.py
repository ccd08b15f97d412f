"""`manage.py streams delete`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from django.core.management.base import CommandError
from django.db.models import ProtectedError, RestrictedError

from ...api import deletion
from ...protocol.producers import SERVER_MARK
from ...store.read.listing import StreamKey
from ...subscriptions import operating
from .base import (
    Console,
    Options,
    Subcommand,
    add_dry_run,
    add_hint,
    add_paths,
    count_streams,
    counted,
    find_keys,
    is_pattern,
)
from .progress import progress

STREAMS_PER_TRANSACTION = 500
"""Streams that one transaction deletes. Appends wait for the transaction."""


class Delete(Subcommand):
    """Deletes streams, or the cursors of a consumer."""

    name = "delete"
    help = "delete streams, or the cursors of a consumer that the code does not have any more"
    examples = """
streams delete chat/42
streams delete 'chat/**' --dry-run
streams delete 'chat/**' --no-input
streams delete --consumer order-totals

A deleted stream is gone at once. Its rows are purged in the background by the servers, or by `streams prune`.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_paths(parser, "*")
        parser.add_argument("--consumer", metavar="NAME", help="delete the cursors of this consumer")
        for option in ("--older-than", "--idle"):
            add_hint(parser, option, "For streams without an append for so long: streams prune PATTERN --idle DURATION")
        add_dry_run(parser)

    def run(self, console: Console, options: Options) -> None:
        paths, name = options["paths"], options["consumer"]
        if bool(paths) is bool(name):
            raise CommandError("Name streams, or a consumer by --consumer.")
        if name:
            if not options["dry_run"]:
                operating.perform(console.using, operating.delete, SERVER_MARK + name, console.using)
            outcome = "would be deleted" if options["dry_run"] else "are deleted"
            console.write(f"The cursors of {name} {outcome}.", consumer=name)
            return
        if options["dry_run"]:
            for keys in find_keys(paths, console.using):
                for path, _ in keys:
                    console.write(f"{path} would be deleted.", path=path)
            return
        total = None
        if any(map(is_pattern, paths)):
            total = count_streams(paths, console.using)
            if total:
                console.confirm(f"Delete {counted(total, 'stream')}?", options)
        count = 0
        with progress(console, "streams", total) as counting:
            for keys in find_keys(paths, console.using):
                for first in range(0, len(keys), STREAMS_PER_TRANSACTION):
                    portion = keys[first : first + STREAMS_PER_TRANSACTION]
                    count += _delete(portion, console.using, count)
                    counting.add(len(portion))
        console.write(f"{counted(count, 'stream', 'are')} deleted.", deleted=count)


def _delete(keys: Sequence[StreamKey], using: str, count: int) -> int:
    """Delete streams, and return how many were there. `count`: how many the command has deleted before.

    Raises:
        CommandError, ProtectedError, RestrictedError: a row of the project forbids it.
    """
    try:
        return deletion.delete_keys(keys, using)
    except (ProtectedError, RestrictedError) as error:
        if not count:
            raise
        raise CommandError(
            f"{counted(count, 'stream', 'are')} deleted, and then rows of the project forbid it: {error.args[0]}"
        ) from error
