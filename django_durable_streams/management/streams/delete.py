"""`manage.py streams delete`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence

from django.core.management.base import CommandError
from django.db.models import ProtectedError, RestrictedError

from ...api import deletion
from ...protocol.producers import SERVER_MARK
from ...store.read.listing import StreamKey
from ...store.upkeep import related_rows
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
from .row_changes import RowChanges

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
            _preview(console, paths)
            return
        total = None
        if any(map(is_pattern, paths)):
            total = count_streams(paths, console.using)
            if total and options["interactive"]:
                preview = related_rows.Preview(console.using)
                preview.look([key.id for key in keys] for keys in _portions(paths, console.using))
                question = f"Delete {counted(total, 'stream')}?"
                console.confirm(" ".join([*_foretold(RowChanges.of(preview)), question]), options)
        count = 0
        with related_rows.counting() as rows, progress(console, "streams", total) as counting:
            for keys in _portions(paths, console.using):
                count += _delete(keys, console.using, count)
                counting.add(len(keys))
        console.write(
            " ".join([f"{counted(count, 'stream', 'are')} deleted.", *RowChanges(rows, {}).sentences(dry_run=False)]),
            deleted=count,
            deleted_rows=dict(rows.deleted),
            changed_rows=dict(rows.changed),
        )


def _portions(paths: Sequence[str], using: str) -> Iterator[Sequence[StreamKey]]:
    """Yield the keys of the streams, as many as one transaction deletes."""
    for keys in find_keys(paths, using):
        for first in range(0, len(keys), STREAMS_PER_TRANSACTION):
            yield keys[first : first + STREAMS_PER_TRANSACTION]


def _preview(console: Console, paths: Sequence[str]) -> None:
    """Name the streams that would be deleted, and in the end the rows of the project that would go with them."""
    preview = related_rows.Preview(console.using)
    for keys in _portions(paths, console.using):
        preview.look([[key.id for key in keys]])
        for path, pk in keys:
            if labels := sorted(preview.protected.get(pk, ())):
                text = f"{path} cannot be deleted, because rows of {' and '.join(labels)} protect it."
                console.write(text, path=path, protected_by=labels)
            else:
                console.write(f"{path} would be deleted.", path=path)
    changes = RowChanges.of(preview)
    if sentences := [*_foretold(changes)]:
        console.write(" ".join(sentences), **changes.values())


def _foretold(changes: RowChanges) -> Iterator[str]:
    """Yield the sentences on the rows of the project before a deletion."""
    yield from changes.sentences(dry_run=True)
    if changes.protected:
        yield "The command stops at a protected stream."


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
