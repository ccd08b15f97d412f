"""`manage.py streams prune`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import NamedTuple

from django.core.management.base import CommandError
from django.db.models import ProtectedError, Q, RestrictedError
from django.utils import timezone

from ...api import deletion
from ...conf import config
from ...engine.announcements import announce
from ...models import Stream, StreamQuerySet
from ...protocol.globs import Glob, glob
from ...runtime.write_lock import write_lock
from ...store.sql.ids import has_id
from ...store.upkeep import related_rows, retention, sweeping
from .base import (
    Console,
    Options,
    Subcommand,
    add_dry_run,
    add_hint,
    add_include_keep_all,
    counted,
    duration,
    is_pattern,
    note_left_out,
    wildcard_hint,
    write_some,
)
from .delete import STREAMS_PER_TRANSACTION
from .locations import path_argument
from .progress import progress


class Prune(Subcommand):
    """Deletes streams that nobody uses any more, and purges what was deleted or has expired."""

    name = "prune"
    help = "purge deleted and expired streams now, and delete those that nobody uses any more"
    examples = """
streams prune                              what the servers do in the background, at full speed
streams prune --dry-run                    count it, and name the first streams; -v 2 names all
streams prune 'chat/**' --idle 30d         delete streams without an append for 30 days, then purge
streams prune 'jobs/**' --closed --idle 7d --no-input
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "pattern", nargs="?", default="", metavar="PATTERN", type=path_argument, help="which streams to delete"
        )
        parser.add_argument("--idle", type=duration, help="delete streams without an append for so long, such as 30d")
        parser.add_argument("--closed", action="store_true", help="delete closed streams only")
        add_hint(
            parser,
            "--older-than",
            "--idle DURATION deletes whole streams without an append for so long. To drop old data inside of streams: "
            "streams trim PATTERN --older-than DURATION",
        )
        add_include_keep_all(parser)
        add_dry_run(parser)

    def run(self, console: Console, options: Options) -> None:
        pattern = options["pattern"]
        if pattern and not is_pattern(pattern):
            hint = wildcard_hint(pattern).lstrip() or "Write a pattern such as 'chat/**'."
            raise CommandError(f"{hint} A single stream is deleted by: streams delete PATH")
        deletes = options["idle"] is not None or options["closed"]
        if pattern and not deletes:
            raise CommandError("Say which streams to delete: --idle DURATION, --closed, or both.")
        spares = deletes and not options["include_keep_all"] and retention.may_keep_all(console.using)
        unused = _Unused(
            glob(pattern) if pattern else None, _since(options["idle"]), options["closed"], spares, console.using
        )
        count, left_out = unused.counts() if deletes else (0, 0)
        note_left_out(console, left_out)
        if options["dry_run"]:
            ids = unused.portions() if count else iter(())
            waiting = sweeping.waiting_ids(console.using, STREAMS_PER_TRANSACTION)
            rows, is_complete = related_rows.preview(chain(ids, waiting), console.using)
            would = _Changes(count, sweeping.waiting(console.using), rows, is_complete)
            _report(console, would, dry_run=True)
            write_some(console, _named(unused if count else None, console.using))
            return
        if count:
            console.confirm(f"Delete {counted(count, 'stream')}?", options)
        with related_rows.counting() as rows:
            deleted, forbidden = _delete(console, unused, count) if count else (0, 0)
            swept = _sweep(console)
        _report(console, _Changes(deleted, swept._replace(left=swept.left + forbidden), rows), dry_run=False)


class _Unused(NamedTuple):
    """The streams that nobody uses any more."""

    pattern: Glob | None
    since: datetime | None
    is_closed: bool
    spares_keep_all: bool
    """Whether streams are left out whose rule of retention says to keep everything."""
    using: str

    @property
    def condition(self) -> Q:
        """The condition of such streams, but for the pattern."""
        condition = Q(closed=True) if self.is_closed else Q()
        if self.since is not None:
            condition &= Q(created_at__lt=self.since) & (Q(appended_at=None) | Q(appended_at__lt=self.since))
        return condition

    @property
    def _streams(self) -> StreamQuerySet:
        prefix = self.pattern.prefix if self.pattern is not None else ""
        streams = Stream.objects.using(self.using).alive().with_prefix(prefix).filter(self.condition)
        # Without changes of streams the registry rests. Its readers still need it.
        return streams.exclude(path=registry_path) if (registry_path := config().registry_path) else streams

    def counts(self) -> tuple[int, int]:
        """Return how many there are, and how many are left out by a rule. The database counts where it can."""
        if self.pattern is None and not self.spares_keep_all:
            return self._streams.count(), 0
        number = left_out = 0
        for keys, spared in self._pages():
            number, left_out = number + len(keys), left_out + spared
        return number, left_out

    def delete(self, ids: Sequence[int]) -> tuple[int, int]:
        """Delete those of some streams that are still unused, together or, where that is forbidden, each half.

        Returns the number of deleted streams, and of those that a row of the project protects.
        """
        query = Stream.objects.using(self.using).alive().filter(self.condition, has_id("id", ids, self.using))
        rows = query.values_list("path", "pk", "tail_position")
        try:
            unchanged = [(path, pk, tail) for path, pk, tail in rows if path is not None]
            return deletion.delete_unchanged(unchanged, self.using), 0
        except (ProtectedError, RestrictedError):
            if len(ids) == 1:
                return 0, 1
            middle = len(ids) // 2
            first, second = self.delete(ids[:middle]), self.delete(ids[middle:])
            return first[0] + second[0], first[1] + second[1]

    def portions(self) -> Iterator[list[int]]:
        """Yield the ids of the streams, as many as one transaction deletes."""
        return ([pk for _, pk in keys] for keys in self.pages())

    def pages(self) -> Iterator[list[tuple[str, int]]]:
        """Yield the paths and ids of the streams, as many as one transaction deletes."""
        return (keys for keys, _ in self._pages() if keys)

    def _pages(self) -> Iterator[tuple[list[tuple[str, int]], int]]:
        """Yield the same, with the number of streams that are left out by a rule."""
        query = self._streams.order_by("path")
        after = ""
        while rows := list(query.filter(path__gt=after).values_list("path", "pk")[:STREAMS_PER_TRANSACTION]):
            keys = [(path or "", pk) for path, pk in rows]
            after = keys[-1][0]
            matching = [key for key in keys if self.pattern is None or self.pattern.matches(key[0])]
            spared = retention.keeping_all(self.using, matching) if self.spares_keep_all else ()
            yield [key for key in matching if key[1] not in spared], len(spared)


class _Changes(NamedTuple):
    """What a run changes, or would change."""

    deleted: int
    swept: sweeping.Swept
    rows: related_rows.RowCounts
    are_all_rows_counted: bool = True


def _delete(console: Console, unused: _Unused, expected: int) -> tuple[int, int]:
    """Delete the unused streams. Return their number, and the number of streams that rows of the project protect."""
    count = forbidden = 0
    with progress(console, "streams deleted", expected) as counting:
        for ids in unused.portions():
            deleted, kept = unused.delete(ids)
            count, forbidden = count + deleted, forbidden + kept
            counting.add(len(ids))
    return count, forbidden


def _named(unused: _Unused | None, using: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the line and the values of each stream that would go. A stream that is purged has lost its path before."""
    if unused is not None:
        for keys in unused.pages():
            for path, _ in keys:
                yield f"{path} would be deleted.", {"path": path, "outcome": "deleted"}
    for path, outcome in sweeping.waiting_paths(using):
        kind = "has expired" if outcome == "expired" else "was deleted, and its forks are gone"
        yield f"{path} {kind}, so it would be removed.", {"path": path, "outcome": outcome}


def _since(idle_seconds: int | None) -> datetime | None:
    if idle_seconds is None:
        return None
    try:
        return timezone.now() - timedelta(seconds=idle_seconds)
    except OverflowError:
        raise CommandError("The duration of --idle is too long.") from None


def _sweep(console: Console) -> sweeping.Swept:
    expired = removed = purged = left = 0
    portions = sweeping.sweep(console.using)
    with progress(console, "streams swept") as counting:
        while True:
            with write_lock(console.using).hold():
                swept = next(portions, None)
            if swept is None:
                break
            if swept.commits:
                announce(list(swept.commits), console.using)
            expired, removed = expired + swept.expired, removed + swept.removed
            purged, left = purged + swept.purged, left + swept.left
            counting.add(swept.expired + swept.removed + swept.purged)
    return sweeping.Swept(expired, removed, purged, left)


def _report(console: Console, changes: _Changes, *, dry_run: bool) -> None:
    swept, rows = changes.swept, changes.rows
    console.write(
        " ".join([*_sentences(changes.deleted, swept, dry_run), *_sentences_about_rows(changes, dry_run)])
        or "Nothing to delete.",
        deleted=changes.deleted,
        expired=swept.expired,
        removed=swept.removed,
        purged=swept.purged,
        left=swept.left,
        deleted_rows=dict(rows.deleted),
        changed_rows=dict(rows.changed),
        all_rows_counted=changes.are_all_rows_counted,
        dry_run=dry_run,
    )


def _sentences(deleted: int, swept: sweeping.Swept, dry_run: bool) -> Iterator[str]:
    """Yield a sentence for each kind of change that was made, or would be. A kind without changes has none."""
    for count, kind, deed in (
        (deleted, "stream", "deleted"),
        (swept.expired, "expired stream", "deleted"),
        (swept.removed, "deleted stream", "removed, as no fork is left"),
    ):
        if count:
            was = "would be" if dry_run else "was" if count == 1 else "were"
            yield f"{counted(count, kind)} {was} {deed}."
    if swept.purged:
        data = f"The data of {counted(swept.purged, 'deleted stream')}"
        yield f"{data} {'would be' if dry_run else 'was'} removed."
    if swept.left:
        are = "is" if swept.left == 1 else "are"
        yield f"{counted(swept.left, 'stream')} {are} held by other rows or transactions."


def _sentences_about_rows(changes: _Changes, dry_run: bool) -> Iterator[str]:
    """Yield a sentence for each model of the project whose rows follow their streams, by their `on_delete`."""
    at_least = "" if changes.are_all_rows_counted else "At least "
    for counts, deed in (
        (changes.rows.deleted, "deleted with their streams"),
        (changes.rows.changed, "changed, as their on_delete says"),
    ):
        for label, count in sorted(counts.items()):
            was = "would be" if dry_run else "was" if count == 1 else "were"
            yield f"{at_least}{counted(count, 'row')} of {label} {was} {deed}."
    if not (changes.are_all_rows_counted or changes.rows.deleted or changes.rows.changed):
        yield "The rows of the project that refer to them are too many to count."
