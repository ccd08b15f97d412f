"""`manage.py streams prune`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
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
from ...store.upkeep.related_rows import Protected
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
from .row_changes import RowChanges


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
            would = _would_change(unused, count)
            _report(console, would, dry_run=True)
            write_some(console, _named(unused, count, would.related.protected))
            return
        protected: Protected = {}
        if count and options["interactive"]:
            count, protected = _confirmed(console, unused, count, options)
        with related_rows.counting() as rows:
            deleted = 0
            if count:
                deleted, protected = _delete(console, unused, count)
            swept = _sweep(console)
        related = RowChanges(rows, {**protected, **swept.protected})
        _report(console, _Changes(deleted, swept, related), dry_run=False)


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

    def delete(self, ids: Sequence[int]) -> tuple[int, Protected]:
        """Delete those of some streams that are still unused, together or, where that is forbidden, each half.

        Returns the number of deleted streams, and the streams that rows of the project protect.
        """
        query = Stream.objects.using(self.using).alive().filter(self.condition, has_id("id", ids, self.using))
        rows = query.values_list("path", "pk", "tail_position")
        try:
            unchanged = [(path, pk, tail) for path, pk, tail in rows if path is not None]
            return deletion.delete_unchanged(unchanged, self.using), {}
        except (ProtectedError, RestrictedError) as error:
            if len(ids) == 1:
                return 0, {ids[0]: related_rows.protecting(error)}
            middle = len(ids) // 2
            (first, kept), (second, others) = self.delete(ids[:middle]), self.delete(ids[middle:])
            return first + second, {**kept, **others}

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
    related: RowChanges


def _would_change(unused: _Unused, count: int) -> _Changes:
    """Return what a run would change. `count`: the number of unused streams, with the protected ones."""
    using = unused.using
    preview, swept = related_rows.Preview(using), sweeping.waiting(using)
    kept = preview.look(unused.portions()) if count else 0
    preview.look(sweeping.ending_ids(using, STREAMS_PER_TRANSACTION))
    kept_data = preview.look(sweeping.purgeable_ids(using, STREAMS_PER_TRANSACTION))
    return _Changes(count - kept, swept._replace(purged=swept.purged - kept_data), RowChanges.of(preview))


def _confirmed(console: Console, unused: _Unused, count: int, options: Options) -> tuple[int, Protected]:
    """Ask before the deletion of unused streams, and say which rows go with them.

    Returns the number of streams to delete, and the protected ones.
    """
    would = _would_change(unused, count)
    if would.deleted:
        question = f"Delete {counted(would.deleted, 'stream')}?"
        console.confirm(" ".join([*would.related.sentences(dry_run=True), question]), options)
    return would.deleted, would.related.protected


def _delete(console: Console, unused: _Unused, expected: int) -> tuple[int, Protected]:
    """Delete the unused streams. Return their number, and the streams that rows of the project protect."""
    count, protected = 0, dict[int, frozenset[str]]()
    with progress(console, "streams", expected) as counting:
        for ids in unused.portions():
            deleted, kept = unused.delete(ids)
            count += deleted
            protected.update(kept)
            counting.add(len(ids))
    return count, protected


def _named(unused: _Unused, count: int, protected: Protected) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the line and the values of each stream that would go, and then of each one that would be left.

    A stream that is purged has lost its path before.
    """
    for keys in unused.pages() if count else ():
        for path, pk in keys:
            if pk not in protected:
                yield f"{path} would be deleted.", {"path": path, "outcome": "deleted"}
    for path, outcome in sweeping.waiting_paths(unused.using):
        kind = "has expired" if outcome == "expired" else "was deleted, and its forks are gone"
        yield f"{path} {kind}, so it would be removed.", {"path": path, "outcome": outcome}
    for keys in unused.pages() if protected else ():
        for path, pk in keys:
            if pk in protected:
                yield f"{path} would be left.", {"path": path, "outcome": "protected"}


def _since(idle_seconds: int | None) -> datetime | None:
    if idle_seconds is None:
        return None
    try:
        return timezone.now() - timedelta(seconds=idle_seconds)
    except OverflowError:
        raise CommandError("The duration of --idle is too long.") from None


def _sweep(console: Console) -> sweeping.Swept:
    expired = removed = purged = left = 0
    protected: dict[int, frozenset[str]] = {}
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
            protected.update(swept.protected)
            counting.add(swept.expired + swept.removed + swept.purged)
    return sweeping.Swept(expired, removed, purged, left, protected)


def _report(console: Console, changes: _Changes, *, dry_run: bool) -> None:
    swept, related = changes.swept, changes.related
    console.write(
        " ".join([*_sentences(changes.deleted, swept, dry_run), *related.sentences(dry_run=dry_run)])
        or "Nothing to delete.",
        deleted=changes.deleted,
        expired=swept.expired,
        removed=swept.removed,
        purged=swept.purged,
        left=swept.left + len(related.protected),
        **related.values(),
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
        them = "it" if swept.left == 1 else "them"
        yield f"{counted(swept.left, 'stream', 'are')} left, because other transactions hold {them}."
