"""Key compaction: of the messages of a JSON stream with the same key, the newest stays (`protocol.key_compaction`).

Positions do not change: a chunk keeps its range, and becomes sparse. A pass (`key_passes`) reads the messages after the
part that earlier passes have covered, and remembers the newest position of each key. Then it goes through the stream
from its beginning, and removes what these messages replace. Each portion is one short transaction.

Invariants:
- A message is removed only if a later one with its key is there, or has been removed for a later one itself. So a pass
  may end anywhere, and several processes may make one at once.
- A delete is removed only after a whole pass has removed what it deletes, and `tombstones` seconds later.
- The last message of a stream is never removed, so a reader always has a message to read up to the tail.
- The data that a fork reads stays as it is. The transaction that removes messages holds the row of the stream, as the
  creation of a fork does.

This module decides which passes are due, and writes. The notes are in the row of `Retention`. Older notes are never
wrong: they only cost work. Each pass has a number, so a process that has lost its claim no longer writes notes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from django.db import Error, connections
from django.db.models import Max
from django.utils import timezone

from ... import clock
from ...conf import Config, config
from ...models import Chunk, Retention, Stream
from ...protocol import content
from ...protocol.key_compaction import KeyCompactionRules, key_compaction_patterns
from ...protocol.pattern_rules import PatternRules
from ...runtime.caller_transaction import atomic
from ...runtime.database_errors import FailureKind, diagnose
from ..read import log_reader
from ..sql import Row, statements
from ..stream_info import StreamInfo
from .retention import upsert

MIN_DIRTY_BYTES = 64 * 1024
DIRTY_SHARE = 2
"""A pass begins with so many new bytes, and 1 / DIRTY_SHARE of the bytes that the last pass has left."""

MARKS = 4
"""Times within the `delay` at which the tail is noted."""

CLAIM_SECONDS = 300
"""Time in which other processes leave a stream alone for which one has begun a pass, or has renewed its claim."""

LOCK_MS = 500
"""Time for which a portion waits for the row of its stream. The thread has other work, too."""

MICROSECONDS = 1_000_000

Mark = tuple[int, int]
"""A position, and a time in microseconds since 1970."""


class Notes(NamedTuple):
    """What passes have noted of a stream. The positions are those of the last one."""

    start: int = 0
    """Where it began."""
    clean: int = 0
    """Where it ended: between both, no message has a later one with its key."""
    kept: int = 0
    """Bytes that it has left."""
    deletes: int = 0
    """Deletes that it has left."""
    horizon: int = 0
    """The position up to which it has removed deletes."""
    passes: Sequence[Mark] = ()
    """Ends of passes, and when they were done, in order."""
    tails: Sequence[Mark] = ()
    """The tail at some times, in order."""
    claimed_until: int = 0
    begun: int = 0
    """The number of passes that have begun. It tells an export whether one has begun meanwhile."""

    @property
    def marks(self) -> list[list[Mark]]:
        """The notes with times."""
        return [[(position, time) for position, time in some] for some in (self.tails, self.passes)]

    @classmethod
    def of(cls, row: Retention | None) -> Notes:
        """Return the notes of a row, or the first ones."""
        return cls(**row.key_compaction) if row is not None and row.key_compaction else cls()

    def is_claimed(self, moment: int) -> bool:
        """Whether a process makes a pass. A clock that was wrong, and is right again, has left no claim."""
        return moment < self.claimed_until <= moment + 2 * CLAIM_SECONDS * MICROSECONDS

    def up_to(self, moment: int) -> Notes:
        """Return the notes without times after a moment: a clock was wrong. Later times only delay removals."""
        return self._replace(tails=_up_to(self.tails, moment), passes=_up_to(self.passes, moment))


class Job(NamedTuple):
    """A pass that is due."""

    stream_id: int
    path: str
    notes: Notes
    start: int
    """Where it begins: nothing before is changed."""
    clean: int
    limit: int
    """Where it ends at the latest: nothing after is read."""
    horizon: int
    """Deletes up to this position are removed."""


class Portion(NamedTuple):
    """Chunks of a stream, and the chunks that replace them, each without the time of its row."""

    ids: list[int]
    rows: list[Row]


_patterns: tuple[Config, PatternRules[KeyCompactionRules]] | None = None


def patterns() -> PatternRules[KeyCompactionRules]:
    """Return the rules of the setting, compiled once."""
    global _patterns
    settings = config()
    if _patterns is None or _patterns[0] is not settings:
        _patterns = settings, key_compaction_patterns(settings.key_compaction)
    return _patterns[1]


def cache_seconds() -> float | None:
    """Return the seconds for which a process may cache data, so that no cached value outlives its delete.

    An HTTP cache may show the data for some minutes more (`caching.PUBLIC`), which has to fit into `tombstones`.
    """
    return min((rules.tombstones / 3 for _, rules in patterns().patterns), default=None)


def now() -> int:
    """Return the time in microseconds since 1970."""
    return clock.to_microseconds(clock.now())


def plan(using: str, ids: Collection[int], at: int | None = None) -> tuple[list[Job], dict[int, Notes]]:
    """Return the passes that are due, and the changed notes of streams.

    Args:
        using: alias of the database.
        ids: the streams.
        at: the time in microseconds since 1970, the current one by default.
    """
    moment = now() if at is None else at
    infos = log_reader.find_ids(ids, using) if ids else {}
    rows = Retention.objects.using(using).in_bulk([*infos])
    cuts = _cuts(using, [*infos])
    jobs, changed = [], {}
    for info in infos.values():
        rules = patterns().find(info.path) if content.is_json(info.content_type) else None
        if rules is None:
            continue
        before = Notes.of(rows.get(info.id))
        notes = before.up_to(moment)
        notes = notes._replace(tails=_with_tail(notes.tails, info.tail, moment, rules))
        if notes.marks != before.marks:
            changed[info.id] = notes
        job = _job(info, cuts.get(info.id, 0), notes, rules, moment)
        if job is not None:
            jobs.append(job)
    return jobs, changed


def _cuts(using: str, ids: Collection[int]) -> Mapping[int, int]:
    """Return the position up to which forks read the data of each stream that has forks."""
    forks = Stream.objects.using(using).filter(source_id__in=ids, path__isnull=False).order_by()
    return {
        source: cut or 0 for source, cut in forks.values_list("source_id").annotate(cut=Max("fork_position")) if source
    }


def _up_to(marks: Sequence[Mark], moment: int) -> Sequence[Mark]:
    return [(position, min(time, moment)) for position, time in marks]


def _with_tail(tails: Sequence[Mark], tail: int, moment: int, rules: KeyCompactionRules) -> Sequence[Mark]:
    old = [mark for mark in tails if mark[1] <= moment - rules.delay * MICROSECONDS]
    marks = [*old[-1:], *tails[len(old) :]]
    is_late = not marks or moment - marks[-1][1] >= rules.delay * MICROSECONDS // MARKS
    return [*marks, (tail, moment)] if is_late and (not marks or marks[-1][0] < tail) else marks


def _job(info: StreamInfo, cut: int, notes: Notes, rules: KeyCompactionRules, moment: int) -> Job | None:
    if notes.is_claimed(moment):
        return None
    begin = info.fork_position or 0
    start = max(info.first_position, begin, cut)
    # Where the data of a fork ended, messages were never compared with those after it.
    earlier = notes if start >= notes.start else Notes(tails=notes.tails)
    clean = max(earlier.clean, start)
    old = [position for position, time in notes.tails if time <= moment - rules.delay * MICROSECONDS]
    limit = min(max(old, default=0), info.tail - rules.newest_bytes)
    # A delete of a message that stays has to stay as well.
    is_whole = start == info.first_position and (not begin or info.first_position >= begin)
    done = [position for position, time in earlier.passes if time <= moment - rules.tombstones * MICROSECONDS]
    horizon = max(done, default=0) if is_whole else 0
    is_dirty = limit - clean >= max(MIN_DIRTY_BYTES, earlier.kept // DIRTY_SHARE)
    if is_dirty or (earlier.deletes and horizon > max(earlier.horizon, start)):
        return Job(info.id, info.path, earlier, start, clean, max(limit, clean), horizon)
    return None


def claim(using: str, job: Job, at: int | None = None) -> Job | None:
    """Tell other processes of a pass. Return the job with its number, or None if another process was faster."""
    moment = now() if at is None else at
    with atomic(using):
        before = Notes.of(_locked(using, [job.stream_id]).get(job.stream_id))
        if before.is_claimed(moment) or not Stream.objects.using(using).filter(pk=job.stream_id).exists():
            return None
        until = moment + CLAIM_SECONDS * MICROSECONDS
        notes = job.notes._replace(tails=before.tails, claimed_until=until, begun=before.begun + 1)
        upsert(using, [_row(job.stream_id, notes)], ["key_compaction"])
    return job._replace(notes=notes)


def save(using: str, job: Job, notes: Notes, at: int | None = None) -> bool:
    """Write the notes of a pass, with which its claim ends, or goes on.

    Args:
        using: alias of the database.
        job: the claimed pass.
        notes: the notes. The times of tails are left as they are.
        at: the time in microseconds since 1970 from which the claim goes on. None: it ends.

    Returns:
        False, with nothing written, if another process has begun a pass since, or the stream is gone.
    """
    until = 0 if at is None else at + CLAIM_SECONDS * MICROSECONDS
    with atomic(using):
        row = _locked(using, [job.stream_id]).get(job.stream_id)
        present = Notes.of(row)
        if row is None or present.begun != job.notes.begun:
            return False
        written = notes._replace(tails=present.tails, claimed_until=until, begun=present.begun)
        Retention.objects.using(using).unguarded().filter(pk=job.stream_id).update(key_compaction=written._asdict())
    return True


def save_marks(using: str, changed: Mapping[int, Notes], at: int | None = None) -> None:
    """Write the times of notes, by the ids of the streams. Claims, and what passes have noted, stay as they are.

    Args:
        using: alias of the database.
        changed: the notes of `plan`.
        at: the time that `plan` had.
    """
    moment = now() if at is None else at
    with atomic(using):
        present = _locked(using, changed)
        rows = []
        for stream_id, notes in sorted(changed.items()):
            passes = Notes.of(present.get(stream_id)).up_to(moment)
            rows.append(_row(stream_id, passes._replace(tails=notes.tails)))
        upsert(using, rows, ["key_compaction"])


def _locked(using: str, ids: Collection[int]) -> dict[int, Retention]:
    return Retention.objects.using(using).select_for_update().order_by("pk").in_bulk([*ids])


def _row(stream_id: int, notes: Notes) -> Retention:
    return Retention(stream_id=stream_id, key_compaction=notes._asdict())


def replace(using: str, job: Job, portion: Portion) -> bool:
    """Replace the chunks of a portion in one transaction.

    Returns:
        False, with nothing changed, if another transaction holds the stream for long, or holds a chunk, or has changed
        a chunk, or if a fork has begun to read the data.
    """
    try:
        return _replace(using, job, portion)
    except Error as error:
        if diagnose(error) is FailureKind.BUSY:
            return False
        raise


def _replace(using: str, job: Job, portion: Portion) -> bool:
    stamp = connections[using].ops.adapt_datetimefield_value(timezone.now())
    sql = statements(using)
    with sql.transaction(LOCK_MS) as cursor:
        # Not SKIP LOCKED: the row of a busy stream is locked nearly all the time, for some milliseconds each.
        sql.wait_for_stream(cursor, job.path, LOCK_MS)
        present = Stream.objects.using(using).filter(pk=job.stream_id, path=job.path, deleted_at__isnull=True)
        if not present.exists() or _cuts(using, [job.stream_id]).get(job.stream_id, 0) > job.start:
            return False
        if not sql.lock_chunks(cursor, portion.ids).issuperset(portion.ids):
            return False
        sql.delete_rows(cursor, Chunk, portion.ids)
        sql.insert_chunks(cursor, [(*row, stamp) for row in portion.rows])
    return True
