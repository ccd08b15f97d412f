"""The rules of retention: how far each of them trims, by the marks that it sets. On every database."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from django_durable_streams.models import Chunk, Retention, StagedChunk, Stream
from django_durable_streams.protocol import offsets
from django_durable_streams.protocol.errors import (
    DurableStreamsError,
    InvalidOffset,
    InvalidParameter,
    OffsetOutOfRange,
    OffsetTrimmed,
    StreamNotFound,
)
from django_durable_streams.protocol.globs import Glob
from django_durable_streams.protocol.retention import KEEP_ALL, RetentionRules
from django_durable_streams.store.operations import Append, Create, Created, Fork, Operation, Trim, Trimmed
from django_durable_streams.store.upkeep import compaction, removal, retention, staged_chunks, trimming
from django_durable_streams.store.write import group_commit
from tests.overriding import override_streams
from tests.store.contexts import Staging
from tests.store.trimming_steps import USING, apply_rules, drop

TEXT, BYTES, JSON = "text/plain", "application/octet-stream", "application/json"
START = 1_700_000_000 * 1_000_000
SECOND = 1_000_000

pytestmark = pytest.mark.django_db


def first_of(stream: Stream) -> int:
    return int(Stream.objects.get(pk=stream.pk).first_position)


def marks_of(stream: Stream) -> list[Any]:
    return list(Retention.objects.get(pk=stream.pk).marks)


def create(kind: str = BYTES, path: str = "s/a", **options: Any) -> Stream:
    return Stream.objects.create(path=path, content_type=kind, **options)


# By age.


@pytest.mark.parametrize("kind", [TEXT, BYTES, JSON])
@pytest.mark.slow
def test_data_is_trimmed_once_it_is_older_than_its_age_and_never_before(kind: str) -> None:
    stream = create(kind)
    stream.retain(age=160)
    ends = [0]
    for second in range(0, 800, 5):
        stream.append(b"1")
        ends.append(int(stream.tail_position))
        apply_rules(START + second * SECOND)
        first = first_of(stream)
        age_of_first = second - 5 * ends.index(first)  # seconds since the append of the first retained data
        assert age_of_first <= 160 + 2 * 10 + 5
        if first:
            assert second - 5 * (ends.index(first) - 1) >= 160
        assert len(marks_of(stream)) <= 2 * retention.MARKS
    for second in (800, 980):
        apply_rules(START + second * SECOND)
    assert first_of(stream) == stream.tail_position
    assert list(stream.read()) == []


def test_the_stored_size_stays_close_to_what_a_rule_by_age_keeps() -> None:
    stream = create()
    stream.retain(age=3600)
    messages, hour = 40, 30 * 40 * 100
    sizes = []
    for minute in range(0, 3 * 60, 2):
        group_commit.apply([Append("s/a", BYTES, b"x" * 100)] * messages, USING)
        apply_rules(START + minute * 60 * SECOND)
        drop()
        if not minute % 5:
            compaction.compact(USING, [stream.pk])
        chunks = Chunk.objects.filter(stream=stream)
        sizes.append(sum(len(data) + len(ends) for data, ends in chunks.values_list("data", "ends")))
    assert hour < max(sizes[30:]) < 1.4 * hour


def test_a_look_after_a_long_time_trims_nothing_whose_age_is_not_known() -> None:
    stream = create(data=b"abc")
    stream.retain(age=10)
    apply_rules(START)
    stream.append(b"def")
    apply_rules(START + 1000 * SECOND)
    assert first_of(stream) == 3
    apply_rules(START + 1010 * SECOND)
    assert first_of(stream) == 6


def test_marks_of_a_clock_that_was_ahead_keep_data_for_its_age_once_more_and_no_longer() -> None:
    stream = create()
    stream.retain(age=160)
    stream.append(b"1")
    apply_rules(START + 10**6 * SECOND)
    apply_rules(START)  # the clock is right again
    stream.append(b"2")
    for second in range(0, 400, 20):
        apply_rules(START + second * SECOND)
        assert first_of(stream) == (0 if second < 160 else 1 if second < 180 else 2)


def test_age_does_not_depend_on_chunks(settings: Any) -> None:
    stream = create()
    stream.retain(age=16)
    for second in range(20):
        stream.append(b"x")
        apply_rules(START + second * SECOND)
        compaction.compact(USING, [stream.pk])
    assert first_of(stream) in (3, 4)


def test_a_text_is_not_trimmed_inside_a_character() -> None:
    stream = create(TEXT)
    stream.append("aä".encode()[:2])
    stream.retain(age=10)
    apply_rules(START)
    stream.append("aä".encode()[2:])
    apply_rules(START + 10 * SECOND)
    assert first_of(stream) == 1
    assert list(stream.read()) == ["ä"]


# By bytes.


@pytest.mark.parametrize("kind", [TEXT, BYTES])
def test_the_newest_bytes_are_kept_in_whole_appends(kind: str) -> None:
    stream = create(kind)
    stream.retain(bytes=16)
    for number in range(30):
        stream.append(b"abc")
        apply_rules()
        kept = int(stream.tail_position) - first_of(stream)
        assert kept >= min(16, 3 * (number + 1))
        assert kept <= 16 + 16 // retention.SLACK + 2
    assert first_of(stream) % 3 == 0 or kind == TEXT


def test_an_append_that_is_larger_than_the_limit_is_kept_whole() -> None:
    stream = create(data=b"x" * 100)
    stream.retain(bytes=10)
    apply_rules()
    assert first_of(stream) == 0
    stream.append(b"y" * 10)
    apply_rules()
    assert first_of(stream) == 100


# By messages.


@pytest.mark.parametrize("keep", [1, 3, 40])
@pytest.mark.parametrize("kind", [TEXT, BYTES, JSON])
@pytest.mark.slow
def test_the_newest_messages_are_kept(kind: str, keep: int) -> None:
    stream = create(kind)
    stream.retain(messages=keep)
    for number in range(1, 80, 3):
        for _ in range(3):
            stream.append(b"7")
        apply_rules()
        size = 2 if kind == JSON else 1
        kept = (int(stream.tail_position) - first_of(stream)) // size
        assert min(keep, number + 2) <= kept <= keep + max(keep // retention.MARKS, 1)
        assert len(marks_of(stream)) <= 2 * retention.MARKS


def test_messages_of_one_append_stay_together() -> None:
    stream = create(JSON)
    stream.append_many([1, 2, 3, 4, 5, 6])
    stream.append(7)
    stream.retain(messages=3)
    apply_rules()
    assert list(stream.read()) == [1, 2, 3, 4, 5, 6, 7]
    stream.append_many([8, 9])
    apply_rules()
    assert list(stream.read()) == [7, 8, 9]


def test_counting_goes_on_where_it_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "COUNTED_BYTES", 7)
    monkeypatch.setattr(retention, "PAGE_BYTES", 4)
    streams = [create(JSON, path=f"s/{name}") for name in "abc"]
    for stream in streams:
        stream.retain(messages=5)
        for number in range(40):
            stream.append(number % 10)
    looks, is_unfinished = 0, True
    while is_unfinished:
        plans, is_unfinished = retention.plan(USING, [stream.pk for stream in streams])
        retention.save(USING, plans)
        looks += 1
    assert looks >= 3 * 40 * 2 // (7 + 4)
    apply_rules()
    for stream in streams:
        assert list(stream.read()) == [5, 6, 7, 8, 9]


def test_rules_work_together() -> None:
    stream = create()
    stream.retain(age=160, messages=1000, bytes=50)
    for second in range(0, 300, 5):
        stream.append(b"0123456789")
        apply_rules(START + second * SECOND)
        assert int(stream.tail_position) - first_of(stream) <= 70
    apply_rules(START + 320 * SECOND)
    apply_rules(START + 500 * SECOND)
    assert first_of(stream) == stream.tail_position


# Whose rules.


@override_streams(RETENTION={"s/*": {"bytes": 1}, "s/**": {"bytes": 4}})
def test_the_rules_of_a_stream_come_before_those_of_the_setting() -> None:
    streams = [create(path=path) for path in ("s/a", "s/b", "s/b/c", "t")]
    streams[1].retain()
    for stream in streams:
        for _ in range(8):
            stream.append(b"x")
    apply_rules()
    assert [first_of(stream) for stream in streams] == [7, 0, 4, 0]
    assert [stream.retention for stream in streams] == [
        RetentionRules(bytes=1),
        KEEP_ALL,
        RetentionRules(bytes=4),
        KEEP_ALL,
    ]
    streams[1].reset_retention()
    assert streams[1].retention == RetentionRules(bytes=1)
    apply_rules()
    assert first_of(streams[1]) == 7


def test_the_streams_of_a_pattern_come_in_portions_and_without_others() -> None:
    paths = ["s", "s/", "r/x", "s0", "s/a", "s/a/b", "s/\U0010ffff", "s/é", "t/a", "S/a"]
    for path in paths:
        if path != "s/":
            create(path=path)
    Stream.objects.get(path="s/a/b").delete()
    matching: list[str] = []
    while rows := retention.with_pattern(USING, Glob("s/*"), matching[-1] if matching else "", 2):
        matching += [path for path, _ in rows]
    assert matching == ["s/a", "s/é", "s/\U0010ffff"]
    everything = [path for path, _ in retention.with_pattern(USING, Glob("**"), "", 100)]
    assert everything == sorted(set(paths) - {"s/", "s/a/b"})


@pytest.mark.parametrize(
    ("prefix", "end"),
    [("a/", "a0"), ("", None), ("a\U0010ffff", "b"), ("\U0010ffff", None), ("a\ud7ff", "a\ue000")],
)
def test_the_end_of_a_prefix(prefix: str, end: str | None) -> None:
    assert retention._after_prefix(prefix) == end


def test_streams_with_rules_of_their_own_come_in_portions() -> None:
    streams = [create(path=f"s/{number}") for number in range(5)]
    for stream in streams[::2]:
        stream.retain(bytes=1)
    streams[4].reset_retention()
    first = retention.with_own_rules(USING, 0, 1)
    assert [*first, *retention.with_own_rules(USING, first[-1], 5)] == [streams[0].pk, streams[2].pk]


@pytest.mark.parametrize("limits", [{"age": 0}, {"bytes": -1}, {"messages": 0.5}, {"age": timedelta(0)}])
def test_retention_of_nothing_is_refused(limits: Any) -> None:
    stream = create(data=b"abc")
    with pytest.raises(InvalidParameter, match=next(iter(limits))):
        stream.retain(**limits)
    assert not Retention.objects.exists()


def test_a_stream_that_is_gone_has_no_retention() -> None:
    stream = create()
    stream.delete()
    for work in (stream.retain, stream.reset_retention, lambda: stream.trim("-1")):
        with pytest.raises(StreamNotFound):
            work()


# Explicit trims.


def test_a_trim_is_refused_where_the_stream_has_no_such_offset() -> None:
    stream = create(data=b"abc")
    other = create(path="s/b", data=b"abcdef")
    for offset in (other.next_offset, stream.offset_at(4), other.offset_at(1)):
        with pytest.raises(OffsetOutOfRange, match=offset):
            stream.trim(offset)
    for malformed in ("", "7", None, 7, "3_4"):
        with pytest.raises(InvalidOffset):
            stream.trim(malformed)  # type: ignore[arg-type]
    (outcome,), _ = group_commit.apply([Trim("s/a", 4)], USING)
    assert isinstance(outcome, OffsetOutOfRange)
    assert first_of(stream) == 0
    assert not Retention.objects.exists()


def test_a_trim_never_goes_back() -> None:
    stream = create(data=b"abc")
    stream.append(b"def")
    assert stream.trim(stream.next_offset) == stream.next_offset
    assert stream.trim("-1") == stream.next_offset
    (outcome,), commits = group_commit.apply([Trim("s/a", 3)], USING)
    assert outcome == Trimmed(6)
    assert commits == []
    with pytest.raises(OffsetTrimmed):
        list(stream.read("0000000000000000_0000000000000000"))
    stream.append(b"g")
    assert list(stream.read()) == [b"g"]
    assert stream.trim("now") == stream.next_offset
    assert stream.first_offset == stream.next_offset


def test_streams_that_are_made_and_trimmed_in_one_batch() -> None:
    made: list[Operation] = [Create("s/a", BYTES, data=b"abc"), Append("s/a", BYTES, b"def")]
    outcomes, _ = group_commit.apply([*made, Trim("s/a", 3), Trim("s/a", 1)], USING)
    assert outcomes[2:] == [Trimmed(3), Trimmed(3)]
    assert list(Stream.objects.get(path="s/a").read()) == [b"def"]


def test_a_closed_stream_can_be_trimmed() -> None:
    stream = create(data=b"abc")
    stream.close()
    stream.trim("now")
    assert (list(stream.read()), Stream.objects.get().closed) == ([], True)


# The space.


def test_the_chunk_around_the_first_position_is_cut() -> None:
    stream = create(JSON)
    stream.append_many([1] * 50)
    for number in range(50):
        stream.append(number)
    compaction.compact(USING, [stream.pk])
    stream.trim(stream.offset_at(int(stream.tail_position) - 30))
    assert drop() == []
    chunks = Chunk.objects.filter(stream=stream).order_by("end")
    assert chunks[0].start == stream.first_position
    assert sum(len(chunk.data) for chunk in chunks) == 30
    assert list(stream.read()) == list(range(40, 50))
    assert list(stream.read(stream.offset_at(int(stream.tail_position) - 6))) == [48, 49]
    assert not Retention.objects.filter(trim_position__isnull=False).exists()


@pytest.mark.slow
def test_the_size_stays_near_that_of_what_is_kept() -> None:
    """Five hours in steps of a minute, with one hour kept, and compaction as housekeeping does it."""
    create(path="s/a")
    stream = Stream.objects.get(path="s/a")
    stream.retain(age=3600)
    per_step, sizes = 5, []
    for minute in range(5 * 60):
        group_commit.apply([Append("s/a", BYTES, b"x" * 400) for _ in range(per_step)], USING)
        if minute % 4 == 0:
            compaction.compact(USING, [stream.pk])
            plans, _ = retention.plan(USING, [stream.pk], START + minute * 60 * SECOND)
            retention.save(USING, plans)
            group_commit.apply(retention.trims(plans), USING)
            drop()
        if minute >= 90:
            sizes.append(sum(end - start for start, end in Chunk.objects.values_list("start", "end")))
    hour = 60 * per_step * 400
    assert hour <= min(sizes)
    assert max(sizes) <= 1.5 * hour


def test_a_little_before_the_first_position_is_left() -> None:
    stream = create()
    for _ in range(10):
        stream.append(b"x" * 10)
    compaction.compact(USING, [stream.pk])
    stream.trim(stream.offset_at(10))
    drop()
    assert sum(len(chunk.data) for chunk in Chunk.objects.all()) == 100
    stream.trim(stream.offset_at(30))
    drop()
    assert sum(len(chunk.data) for chunk in Chunk.objects.all()) == 70


def test_a_damaged_chunk_is_left_as_it_is() -> None:
    stream = create()
    stream.append(b"abc")
    stream.append(b"def")
    compaction.compact(USING, [stream.pk])
    stream.trim(stream.offset_at(3))
    Chunk.objects.unguarded().update(ends=b"x")
    trimming.delete(USING, trimming.find(USING, [stream.pk]))
    chunk = Chunk.objects.get()
    assert (chunk.start, bytes(chunk.data)) == (0, b"abcdef")


def test_a_fork_keeps_its_data_for_as_long_as_it_needs_it() -> None:
    source = create(data=b"aa")
    for data in (b"bb", b"cc", b"dd"):
        source.append(data)
    fork = source.fork("s/fork", offset=source.offset_at(6))
    grandchild = fork.fork("s/grandchild", offset=fork.offset_at(4))
    source.trim("now")
    fork.trim("now")
    assert drop() == [source.pk, fork.pk]
    assert list(grandchild.read()) == [b"aa", b"bb"]
    assert list(fork.read()) == []
    grandchild.trim(grandchild.offset_at(2))
    # A fork with forks counts as it was made. So nothing is deleted yet, and nothing is lost.
    drop()
    assert list(grandchild.read()) == [b"bb"]
    grandchild.delete()
    removal.purge(USING)
    assert drop() == []
    assert not Chunk.objects.filter(stream=source).exists()
    fork.append(b"x")
    assert list(fork.read()) == [b"x"]


def test_a_fork_of_trimmed_data_is_refused_and_an_existing_one_is_confirmed() -> None:
    source = create(JSON)
    for number in range(4):
        source.append(number)
    ends = [source.offset_at(end) for end in (2, 4, 6)]
    fork = source.fork("s/fork", offset=ends[0])
    source.trim(ends[1])
    drop()
    with pytest.raises(OffsetOutOfRange, match=ends[1]):
        source.fork("s/late", offset=ends[0])
    with pytest.raises(OffsetOutOfRange):
        source.fork("s/late", offset="0000000000000000_0000000000000000", sub_offset=1)
    again = Create("s/fork", JSON, fork=Fork("s/a", offsets.decode(ends[0])))  # type: ignore[arg-type]
    (confirmed,), _ = group_commit.apply([again], USING)
    assert isinstance(confirmed, Created)
    assert not confirmed.created
    assert list(fork.read()) == [0]
    late = source.fork("s/late", offset=ends[1])
    assert (list(late.read()), late.first_offset) == ([], ends[1])
    later = source.fork("s/later", offset=ends[1], sub_offset=1)
    assert list(later.read()) == [2]
    with pytest.raises(OffsetTrimmed) as refused:
        list(later.read(ends[0]))
    assert refused.value.first_offset == ends[1]


def test_the_rows_of_retention_go_with_their_stream() -> None:
    stream = create(data=b"abc")
    stream.retain(bytes=5)
    stream.trim("now")
    stream.delete()
    while removal.purge(USING):
        pass
    assert not Retention.objects.exists()
    assert not Stream.objects.exists()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite has staged chunks")
@pytest.mark.parametrize("is_flushed_meanwhile", [False, True])
def test_staged_data_is_deleted_after_its_flush(monkeypatch: pytest.MonkeyPatch, is_flushed_meanwhile: bool) -> None:
    def flush() -> None:
        for block in {chunk.block for chunk in StagedChunk.objects.all()}:
            for portion in staged_chunks.portions(USING, block, lambda *problem: pytest.fail(str(problem))):
                staged_chunks.flush(USING, portion)

    cut = trimming._cut

    def flushing_after(using: str, limit: trimming.Limit) -> trimming.Cut | None:
        cut_at = cut(using, limit)
        if is_flushed_meanwhile:
            flush()
        return cut_at

    group_commit.apply([Create("s/a", BYTES)], USING)
    for _ in range(4):
        group_commit.apply([Append("s/a", BYTES, b"xyz")], USING, Staging())
    stream = Stream.objects.get(path="s/a")
    stream.trim(stream.offset_at(7))
    assert stream.first_position == 6
    with monkeypatch.context() as patch:
        patch.setattr(trimming, "_cut", flushing_after)
        portion = trimming.find(USING, [stream.pk])
    assert portion == trimming.DropPortion([], [], [], [stream.pk])
    assert list(stream.read()) == [b"xyz"] * 2
    flush()
    assert drop() == []
    assert sum(len(chunk.data) for chunk in Chunk.objects.all()) == 6


def test_errors_name_the_offset_to_go_on_from() -> None:
    stream = create(data=b"abc")
    stream.append(b"def")
    first = stream.offset_at(3)
    stream.trim(first)
    with pytest.raises(DurableStreamsError) as refused:
        list(stream.read(stream.offset_at(1)))
    assert isinstance(refused.value, OffsetTrimmed)
    assert refused.value.first_offset == first
    assert (b"stream-first-offset", first.encode()) in refused.value.headers
    assert list(stream.read(refused.value.first_offset)) == [b"def"]


def test_a_stream_takes_little_more_space_than_what_its_rule_keeps() -> None:
    """The small form of `python -m benchmarks.retention`: hours of messages, with chunks merged between trims."""
    stream = create(path="s/hour")
    stream.retain(age=3600)
    size, step = 100, 225  # a mark's time
    hour = 3600 // step * 6 * size
    largest = 0
    for number in range(6 * 3600 // step):
        group_commit.apply([Append("s/hour", BYTES, b"x" * size) for _ in range(6)], USING)
        apply_rules(START + number * step * SECOND)
        drop()
        if number % 8 == 7:
            compaction.compact(USING, [stream.pk])
        if number * step > 2 * 3600:
            stored = sum(len(data) for data in stream.chunks.values_list("data", flat=True))
            largest = max(largest, stored)
    assert hour <= largest <= 1.5 * hour
