"""Retention: which data of which streams has to go. `trimming` deletes what was trimmed.

A stream with a rule by age or by messages has **marks**: positions, each with a time at which the tail was there, and
with the number of messages before it, if those are counted. Data before a mark is at least as old as the mark. So a
mark tells how far to trim, without a time for each append, whatever the chunks are. New marks are set while the stream
grows, `MARKS` of them for the time or the number of messages that a rule keeps. So at most 1 / `MARKS` more is kept.

Finding what has to go only reads. A trim is an operation (`operations.Trim`), because a committer may have the row of
the stream cached.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import connections

from ... import clock
from ...conf import Config, config
from ...models import Retention, Stream, StreamQuerySet
from ...protocol import content
from ...protocol.errors import OffsetTrimmed, StreamNotFound
from ...protocol.globs import Glob
from ...protocol.pattern_rules import PatternRules
from ...protocol.retention import KEEP_ALL, RetentionRules, retention_patterns
from ...runtime.caller_transaction import atomic
from ..operations import Trim
from ..read import log_reader
from ..read.boundaries import boundary_before
from ..read.log_reader import PageRequest
from ..read.segment_cache import SegmentCache
from ..sql import Row, Statements
from ..stream_info import StreamInfo

MARKS = 16
"""Marks for what a rule keeps."""

SLACK = 8
"""A rule by bytes trims a stream that has 1 / SLACK more than it keeps, so that it does not trim after each append."""

COUNTED_BYTES = 4 * 1024 * 1024
PAGE_BYTES = 1024 * 1024
"""Data whose messages one step counts, of all streams together, and data that is read at a time."""

MICROSECONDS = 1_000_000


class Mark(NamedTuple):
    """The tail had come to `position` at a `time`, in microseconds since 1970, with `messages` before it.

    Messages are counted from some mark on, so only differences count. None: not counted.
    """

    position: int
    time: int
    messages: int | None


class Plan(NamedTuple):
    """What to do with one stream."""

    path: str
    stream_id: int
    marks: list[Mark]
    trim_position: int | None
    """None: trim nothing."""


_patterns: tuple[Config, PatternRules[RetentionRules]] | None = None


def patterns() -> PatternRules[RetentionRules]:
    """Return the rules of the setting, compiled once."""
    global _patterns
    settings = config()
    if _patterns is None or _patterns[0] is not settings:
        _patterns = settings, retention_patterns(settings.retention)
    return _patterns[1]


def row_of(stream_id: int, using: str) -> Retention | None:
    """Return the row with the retention of a stream, if it has one."""
    return Retention.objects.using(using).filter(pk=stream_id).first()


def rules_of(path: str, row: Retention | None) -> RetentionRules:
    """Return the rules that are in force for a stream. `row`: its own retention, if it has any."""
    return rule_of(path, row) or KEEP_ALL


def rule_of(path: str, row: Retention | None) -> RetentionRules | None:
    """Return the rule that is in force for a stream, which may say to keep all data. None: there is no rule for it."""
    return row.rules if row is not None and row.is_explicit else patterns().find(path)


def may_keep_all(using: str) -> bool:
    """Return whether there is any rule that says to keep all data. Without one, `keeping_all` finds nothing."""
    if any(not rules for _, rules in patterns().patterns):
        return True
    own = Retention.objects.using(using).filter(is_explicit=True)
    return own.filter(age=None, max_bytes=None, max_messages=None).exists()


def keeping_all(using: str, streams: Iterable[tuple[str, int]]) -> set[int]:
    """Return the ids of the streams whose rule says to keep all data. Streams without any rule are not among them.

    Args:
        using: alias of the database.
        streams: their paths and ids.
    """
    paths = {stream_id: path for path, stream_id in streams}
    rows = Retention.objects.using(using).in_bulk([*paths])
    rules = {stream_id: rule_of(path, rows.get(stream_id)) for stream_id, path in paths.items()}
    return {stream_id for stream_id, rule in rules.items() if rule is not None and not rule}


def with_own_rules(using: str, after: int, limit: int) -> list[int]:
    """Return the ids of streams with rules of their own, in order, after the id `after`."""
    query = Retention.objects.using(using).filter(is_explicit=True, stream_id__gt=after)
    return list(query.order_by("stream_id").values_list("stream_id", flat=True)[:limit])


def with_pattern(using: str, pattern: Glob, after: str, limit: int) -> list[tuple[str, int]]:
    """Return the paths and ids of streams in the order of their paths, after the path `after`.

    All streams that match a pattern are among them, and others that begin as they do. A query that only returned the
    former would read any number of rows.
    """
    query: StreamQuerySet = Stream.objects.using(using).filter(deleted_at__isnull=True)
    query = query.filter(path__gt=after) if after else query.filter(path__gte=pattern.prefix)
    end = _after_prefix(pattern.prefix)
    if end is not None:
        query = query.filter(path__lt=end)
    rows = list(query.order_by("path").values_list("path", "id")[:limit])
    return [(path, stream_id) for path, stream_id in rows if path is not None]


def _after_prefix(prefix: str) -> str | None:
    """Return the first text after all texts with a prefix, in the order of code points. None: there is no such text."""
    for end in range(len(prefix), 0, -1):
        number = ord(prefix[end - 1]) + 1
        if 0xD800 <= number < 0xE000:  # no database stores surrogates
            number = 0xE000
        if number <= 0x10FFFF:
            return prefix[: end - 1] + chr(number)
    return None


def plan(using: str, ids: Collection[int], now: int | None = None) -> tuple[list[Plan], bool]:
    """Return what has to be done with streams, for those with something to do, and whether they need another look.

    Args:
        using: alias of the database.
        ids: the streams.
        now: the time in microseconds since 1970, the current one by default.

    Raises:
        ServiceUnavailable: the data of one of the streams is damaged.
    """
    moment = clock.to_microseconds(clock.now()) if now is None else now
    infos = log_reader.find_ids(ids, using) if ids else {}
    rows = Retention.objects.using(using).in_bulk([*infos])
    plans: list[Plan] = []
    budget, is_finished = COUNTED_BYTES, True
    for info in infos.values():
        row = rows.get(info.id)
        rules = rules_of(info.path, row)
        if rules and info.tail > info.first_position:
            marks = [Mark(*mark) for mark in row.marks] if row is not None else []
            # A mark in the future is of a clock that was wrong. Up to then, no other mark would be set.
            present = [
                mark._replace(time=min(mark.time, moment))
                for mark in marks
                if info.first_position <= mark.position <= info.tail
            ]
            try:
                if rules.messages is not None:
                    present, counted = _count(info, present, rules.messages, now=moment, budget=budget, using=using)
                    budget -= counted
                    is_finished = is_finished and _counted(present)[-1].position == info.tail
                one = _plan(info, rules, present, moment, using)
            except (StreamNotFound, OffsetTrimmed):  # meanwhile: the next look sees it as it is then
                continue
            if one.trim_position is not None or one.marks != marks:
                plans.append(one)
    return plans, not is_finished


def _plan(info: StreamInfo, rules: RetentionRules, marks: list[Mark], now: int, using: str) -> Plan:
    if rules.age is not None:
        last = next((mark for mark in reversed(marks) if mark.messages is None), None)
        is_late = last is None or now - last.time >= rules.age * MICROSECONDS // MARKS
        if is_late and (last is None or last.position < info.tail):
            marks = [*marks, Mark(info.tail, now, None)]
    target = max([info.first_position, *_targets(marks, rules, now)])
    if rules.bytes is not None and info.tail - info.first_position > rules.bytes + rules.bytes // SLACK:
        target = max(target, info.tail - rules.bytes)
    target = boundary_before(info, target, using)
    marks = _thinned([mark for mark in marks if mark.position >= target])
    trims = target > info.first_position
    return Plan(info.path, info.id, marks, target if trims else None)


def _targets(marks: Sequence[Mark], rules: RetentionRules, now: int) -> Iterator[int]:
    """Yield positions before which the rules by age and by messages keep nothing."""
    last = next(reversed(_counted(marks)), None)
    for mark in marks:
        if rules.age is not None and mark.time <= now - rules.age * MICROSECONDS:
            yield mark.position
        count = None if last is None or mark.messages is None else (last.messages or 0) - mark.messages
        if rules.messages is not None and count is not None and count >= rules.messages:
            yield mark.position


def _counted(marks: Sequence[Mark]) -> list[Mark]:
    return [mark for mark in marks if mark.messages is not None]


def _thinned(marks: list[Mark]) -> list[Mark]:
    """Return no more marks than a few times `MARKS`: rules that were changed may have left others."""
    return marks if len(marks) <= 4 * MARKS else [*marks[: -2 * MARKS : 2], *marks[-2 * MARKS :]]


def _count(
    info: StreamInfo, marks: list[Mark], keep: int, *, now: int, budget: int, using: str
) -> tuple[list[Mark], int]:
    """Count new messages, in data of `budget` bytes or a little more. Return the marks, and the bytes of the data."""
    spacing = max(keep // MARKS, 1)
    counted = _counted(marks) or [Mark(info.first_position, now, 0)]
    begin, _, messages = counted[-1]
    assert messages is not None
    position, until = begin, min(info.tail, begin + budget)
    while position < until:
        for end, number in [*_ends(info, position, using)]:
            position, messages = end, messages + number
            if len(counted) > 1 and messages - (counted[-2].messages or 0) <= spacing:
                counted.pop()  # it was the end of what had been counted, and nothing more
            counted.append(Mark(position, now, messages))
            while len(counted) > 1 and messages - (counted[1].messages or 0) >= keep:
                del counted[0]
    others = [mark for mark in marks if mark.messages is None]
    return sorted([*counted, *others], key=lambda mark: mark.position), position - begin


def _ends(info: StreamInfo, position: int, using: str) -> Iterator[tuple[int, int]]:
    """Yield the end of each append of the page at a position, and the number of messages in the append."""
    segment = log_reader.pages([PageRequest(info, position, PAGE_BYTES)], SegmentCache(0), using)[info.id, position]
    if segment is None:
        raise log_reader.explain_missing(info, position, using)
    is_json = content.is_json(info.content_type)
    for end in segment.ends:
        if end > position:
            yield end, segment.data.count(b"\n", segment.index(position), segment.index(end)) if is_json else 1
            position = end


def save(using: str, plans: Iterable[Plan]) -> None:
    """Write the marks of streams, and which of them are going to be trimmed."""
    with atomic(using):
        by_kind: dict[bool, list[Retention]] = {True: [], False: []}
        for one in plans:
            trims = one.trim_position is not None
            row = Retention(stream_id=one.stream_id, marks=one.marks, trim_position=one.trim_position)
            by_kind[trims].append(row)
        upsert(using, by_kind[False], ["marks"])
        upsert(using, by_kind[True], ["marks", "trim_position"])


class Restored(NamedTuple):
    """A stream that comes from an archive."""

    stream_id: int
    rules: RetentionRules | None
    first_position: int


def restore(sql: Statements, cursor: Any, streams: Iterable[Restored]) -> None:
    """Give new streams their own rules, and have the data before their first position deleted, if there is any.

    Uses the cursor of a `Statements.transaction`, in which Django's `bulk_create` would begin another transaction.
    """
    rows: list[Row] = []
    for stream_id, rules, first_position in streams:
        if rules is not None or first_position:
            own = rules if rules is not None else RetentionRules()
            rows.append((stream_id, rules is not None, own.age, own.bytes, own.messages, "[]", first_position or None))
    if rows:
        sql.insert_retention(cursor, rows)


def upsert(using: str, rows: Sequence[Retention], columns: Sequence[str]) -> None:
    """Insert rows or, where a stream has one, change some of its columns."""
    if not rows:
        return
    targets = connections[using].features.supports_update_conflicts_with_target
    Retention.objects.using(using).unguarded().bulk_create(
        rows,
        batch_size=100,
        update_conflicts=True,
        update_fields=[*columns],
        unique_fields=["stream"] if targets else None,
    )


def trims(plans: Iterable[Plan]) -> list[Trim]:
    """Return the operations of plans, once they are saved."""
    return [Trim(one.path, one.trim_position, one.stream_id) for one in plans if one.trim_position is not None]


def set_rules(using: str, stream_id: int, rules: RetentionRules | None) -> None:
    """Give a stream rules of its own. None: those of the setting."""
    own = rules if rules is not None else RetentionRules()
    values: dict[str, Any] = {"age": own.age, "max_bytes": own.bytes, "max_messages": own.messages}
    row = Retention(stream_id=stream_id, is_explicit=rules is not None, **values)
    upsert(using, [row], ["is_explicit", *values])
