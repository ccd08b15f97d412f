"""Key compaction: which messages go, what readers, forks and archives have before and after. On every database."""

import json
import re
from typing import Any

import pytest
from django.db import connection, transaction

from django_durable_streams.management.streams.read import segments as command_segments
from django_durable_streams.models import Chunk, Retention, Stream
from django_durable_streams.protocol import caching
from django_durable_streams.protocol.errors import InvalidParameter
from django_durable_streams.protocol.key_compaction import MIN_TOMBSTONES, change_of, key_compaction_patterns
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.store.operations import Append, Create
from django_durable_streams.store.read import browsing, log_reader
from django_durable_streams.store.read.log_reader import PageRequest
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.upkeep import compaction, key_compaction, key_passes, removal, trimming
from django_durable_streams.store.upkeep.key_compaction import Notes
from django_durable_streams.store.upkeep.key_passes import Pass
from django_durable_streams.store.write import group_commit
from django_durable_streams.subscriptions.consumers.reading import StreamReader
from tests.overriding import override_streams
from tests.store.key_compaction_steps import (
    SECOND,
    START,
    USING,
    change,
    claimed,
    compact_keys,
    due,
    messages_of,
    run,
    state,
    stored_bytes,
)
from tests.store.trimming_steps import drop

JSON = "application/json"
HOUR = 3600 * SECOND

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def every_byte_counts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(key_compaction, "MIN_DIRTY_BYTES", 1)
    monkeypatch.setattr(key_compaction, "DIRTY_SHARE", 1 << 40)
    with override_streams(KEY_COMPACTION={"s/**": {"delay": 60, "tombstones": 3600}}):
        yield


def create(path: str = "s/a") -> Stream:
    return Stream.objects.create(path=path, content_type=JSON)


def append(stream: Stream, *messages: Any) -> None:
    for message in messages:
        stream.append(message)


def line(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def later(at: int = START) -> int:
    """Note the tails, and return the time at which they may be compacted."""
    due(at)
    return at + 61 * SECOND


def test_the_newest_message_of_each_key_stays_with_its_offset() -> None:
    stream = create()
    append(stream, change("a", 1), change("b", 1), {"other": 1}, change("a", 2), change("b", 2), change("a", 3))
    before = stored_bytes(stream)
    offsets = [stream.offset_at(message.end) for message in messages_of(stream)]
    assert compact_keys(later()) > 0
    assert list(stream.read()) == [{"other": 1}, change("b", 2), change("a", 3)]
    assert stored_bytes(stream) < before
    assert [list(stream.read(offset)) for offset in offsets] == [
        *[[{"other": 1}, change("b", 2), change("a", 3)]] * 2,
        *[[change("b", 2), change("a", 3)]] * 2,
        [change("a", 3)],
        [],
    ]
    assert Stream.objects.get(pk=stream.pk).next_offset == offsets[-1]


def test_types_have_keys_of_their_own_and_other_messages_stay() -> None:
    stream = create()
    others = [
        1,
        "text",
        {"headers": {"control": "reset"}},
        {"type": "row", "key": "a", "headers": {"operation": "update"}},  # without a value
        {"type": "row", "key": "", "value": 1, "headers": {"operation": "update"}},
        {"type": "row", "key": "a", "value": 1, "headers": {"operation": "merge"}},
    ]
    append(stream, change("a", 1), change("a", 1, "column"), *others, change("a", 2))
    compact_keys(later())
    assert list(stream.read()) == [change("a", 1, "column"), *others, change("a", 2)]


def test_names_that_join_to_the_same_text_are_different_keys() -> None:
    one, other = (json.dumps({"type": kind, "key": key, "value": 1, "headers": {"operation": "insert"}}).encode()
                  for kind, key in (("ab", "c"), ("a", "bc")))  # fmt: skip
    assert change_of(one) is not None
    assert change_of(one) != change_of(other)
    assert change_of(b'{"type":"a","key":"\\ud800","value":1,"headers":{"operation":"insert"}}') is None


def test_messages_stay_for_the_delay_and_the_newest_bytes() -> None:
    stream = create()
    append(stream, change("a", 1), change("a", 2))
    due(START)
    append(stream, change("a", 3))
    due(START + 30 * SECOND)
    assert due(START + 59 * SECOND) == []
    compact_keys(START + 61 * SECOND)
    assert list(stream.read()) == [change("a", 2), change("a", 3)]
    with override_streams(KEY_COMPACTION={"s/**": {"newest_bytes": 100}}):
        assert due(START + 1000 * SECOND) == []
    compact_keys(START + 1000 * SECOND)
    assert list(stream.read()) == [change("a", 3)]


def test_a_delete_stays_until_its_time_after_the_values_before_it_are_gone() -> None:
    stream = create()
    append(stream, change("a", 1), change("a"), change("b", 1))
    done = later()
    compact_keys(done)
    assert list(stream.read()) == [change("a"), change("b", 1)]
    compact_keys(done + HOUR - SECOND)
    assert list(stream.read()) == [change("a"), change("b", 1)]
    compact_keys(done + HOUR)
    assert list(stream.read()) == [change("b", 1)]
    assert due(done + 5 * HOUR) == []


def test_the_last_message_stays_until_another_one_follows() -> None:
    stream = create()
    append(stream, change("a", 1), change("a"))
    done = later()
    compact_keys(done)
    compact_keys(done + HOUR)
    assert list(stream.read()) == [change("a")]
    append(stream, change("b", 1))
    compact_keys(later(done + 2 * HOUR))
    assert list(stream.read()) == [change("b", 1)]


def test_a_fork_may_have_no_message_and_goes_on() -> None:
    stream = create()
    append(stream, change("a", 1), change("a", 2), change("b", 1))
    offset = stream.offset_at(messages_of(stream)[0].end)
    compact_keys(later())
    fork = stream.fork("s/fork", offset=offset)
    assert list(fork.read()) == []
    assert fork.next_offset == offset
    append(fork, change("c", 1))
    assert list(fork.read()) == list(fork.read(offset)) == [change("c", 1)]


def test_forks_keep_what_they_read_and_the_source_keeps_the_deletes_of_it() -> None:
    stream = create()
    append(stream, change("a", 1), change("b", 1), change("a", 2))
    fork = stream.fork("s/fork")
    append(stream, change("a", 3), change("a"), change("b", 2), change("b", 3))
    append(fork, change("a", 4), change("a", 5))
    done = later()
    compact_keys(done)
    compact_keys(done + 2 * HOUR)
    assert list(stream.read()) == [change("a", 1), change("b", 1), change("a", 2), change("a"), change("b", 3)]
    assert list(fork.read()) == [change("a", 1), change("b", 1), change("a", 2), change("a", 5)]
    fork.delete()
    compact_keys(done + 2 * HOUR)
    assert list(stream.read()) == [change("a"), change("b", 3)]
    compact_keys(done + 3 * HOUR)
    assert list(stream.read()) == [change("b", 3)]


def test_a_fork_that_is_made_during_a_pass_keeps_what_it_reads() -> None:
    stream = create()
    append(stream, change("a", 1), change("a", 2))
    (job,) = due(later())
    present = Pass(USING, job)
    while present.scan():
        pass
    portion = present.find()
    assert portion is not None
    fork = stream.fork("s/fork", offset=stream.offset_at(messages_of(stream)[0].end))
    assert not key_compaction.replace(USING, job, portion)
    assert list(fork.read()) == [change("a", 1)]
    assert list(stream.read()) == [change("a", 1), change("a", 2)]


def test_a_fork_of_a_compacted_stream_has_what_is_left_before_its_offset() -> None:
    stream = create()
    append(stream, change("a", 1), change("b", 1), change("a", 2))
    offset = stream.offset_at(messages_of(stream)[0].end)
    compact_keys(later())
    fork = stream.fork("s/fork", offset=offset)
    assert list(fork.read()) == []
    append(fork, change("c", 1))
    assert list(fork.read()) == [change("c", 1)]
    assert list(stream.fork("s/other", offset=offset, sub_offset=1).read()) == [change("b", 1)]


def test_a_pass_that_ends_early_leaves_a_right_stream_and_is_made_again() -> None:
    stream = create()
    for number in range(20):
        append(stream, *(change(str(key), number) for key in range(5)))
    (job,) = due(later())
    present = Pass(USING, job)
    while present.scan():
        pass
    portion = present.find()
    assert portion is not None
    assert key_compaction.replace(USING, job, portion)
    assert not key_compaction.replace(USING, job, portion)  # as by another process
    expected = {("row", str(key)): 19 for key in range(5)}
    assert state(stream.read()) == expected
    compact_keys(START + 61 * SECOND)
    assert len(list(stream.read())) == 5
    assert state(stream.read()) == expected


def test_few_keys_at_a_time_and_few_chunks_at_a_time_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_passes, "MAX_KEYS", 3)
    monkeypatch.setattr(key_passes, "BYTES", 200)
    stream = create()
    for number in range(6):
        append(stream, *(change(str(key), number) for key in range(7)))
    at = later()
    for _ in range(50):
        if not compact_keys(at) and not due(at):
            break
    assert sorted(state(stream.read()).items()) == [(("row", str(key)), 5) for key in range(7)]
    assert len(list(stream.read())) == 7


def test_a_second_process_leaves_a_claimed_stream_alone() -> None:
    stream = create()
    append(stream, change("a", 1), change("a", 2))
    at = later()
    (job,) = due(at)
    own = claimed(job, at)
    assert key_compaction.claim(USING, job, at) is None
    assert due(at) == []
    assert len(due(at + 301 * SECOND)) == 1
    assert key_compaction.save(USING, own, own.notes, at + 200 * SECOND)  # the pass takes long
    assert due(at + 301 * SECOND) == []
    run(Pass(USING, own), at)
    assert due(at) == []


def test_a_process_that_has_lost_its_claim_writes_no_notes() -> None:
    stream = create()
    append(stream, change("a", 1), change("a", 2))
    at = later()
    (job,) = due(at)
    first = claimed(job, at)
    second = claimed(job, at + 301 * SECOND)
    assert not key_compaction.save(USING, first, first.notes, at + 302 * SECOND)
    assert not key_compaction.save(USING, first, first.notes)
    assert key_compaction.claim(USING, job, at + 303 * SECOND) is None
    run(Pass(USING, second), at + 304 * SECOND)
    assert Notes.of(Retention.objects.get()).begun == 2


def test_the_notes_of_a_pass_over_a_stream_that_was_purged_are_dropped() -> None:
    stream = create()
    append(stream, change("a", 1), change("a", 2))
    at = later()
    (job,) = due(at)
    own = claimed(job, at)
    stream.delete()
    while removal.purge(USING):
        pass
    assert not Stream.objects.exists()
    assert not key_compaction.save(USING, own, own.notes)
    assert not Retention.objects.exists()


def test_times_that_another_process_notes_during_a_pass_stay() -> None:
    stream = create()
    append(stream, change("a", 1), change("a", 2))
    at = later()
    (job,) = due(at)
    _, before = key_compaction.plan(USING, [stream.pk], at + 20 * SECOND)
    append(stream, change("a", 3))
    _, changed = key_compaction.plan(USING, [stream.pk], at + 40 * SECOND)
    own = claimed(job, at)
    key_compaction.save_marks(USING, changed | before, at + 40 * SECOND)  # planned before the claim
    assert key_compaction.claim(USING, job, at) is None
    run(Pass(USING, own), at)
    tails = Notes.of(Retention.objects.get()).tails
    assert [*tails[-1]] == [Stream.objects.get().tail_position, at + 40 * SECOND]


def test_a_clock_that_was_ahead_delays_compaction_by_no_more_than_its_rules() -> None:
    stream = create()
    append(stream, change("a", 1), change("b", 1), change("a", 2), change("b"), change("c", 1))
    year = 365 * 24 * HOUR
    due(START + year)
    (job,) = due(START + year + 61 * SECOND)
    run(Pass(USING, claimed(job, START + year + 61 * SECOND)), START + year + 61 * SECOND)
    append(stream, change("a", 3))
    due(START + year + 70 * SECOND)
    (job,) = due(START + year + 140 * SECOND)
    claimed(job, START + year + 140 * SECOND)  # and is not made
    assert due(START) == []
    assert compact_keys(START + 61 * SECOND)
    assert list(stream.read()) == [change("b"), change("c", 1), change("a", 3)]
    compact_keys(START + 2 * HOUR)
    assert list(stream.read()) == [change("c", 1), change("a", 3)]


def test_a_chunk_that_is_merged_meanwhile_is_read_again() -> None:
    stream = create()
    append(stream, change("a", 1), change("b", 1), change("a", 2))
    (job,) = due(later())
    present = Pass(USING, job)
    while present.scan():
        pass
    portion = present.find()
    assert portion is not None
    assert compaction.compact(USING, [stream.pk])
    assert not key_compaction.replace(USING, job, portion)
    present.repeat()
    portion = present.find()
    assert portion is not None
    assert key_compaction.replace(USING, job, portion)
    assert present.is_complete
    assert list(stream.read()) == [change("b", 1), change("a", 2)]


def test_sparse_chunks_are_merged_and_cut_like_others() -> None:
    stream = create()
    for number in range(8):
        append(stream, change("a", number), {"n": number}, change("b", number))
    compact_keys(later())
    append(stream, change("c", 1), change("c", 2))
    left = messages_of(stream)
    assert len(left) == 8 + 2 + 2
    assert compaction.compact(USING, [stream.pk])
    assert messages_of(stream) == left
    for position in (left[1].start - 1, left[4].end + 1, left[9].end):
        stream.trim(stream.offset_at(position))
        before = stored_bytes(stream)
        drop()
        assert stored_bytes(stream) <= before
        first = Stream.objects.get(pk=stream.pk).first_position
        assert messages_of(stream, first) == [message for message in left if message.end > first]
    assert stored_bytes(stream) <= sum(len(message.data) + 1 for message in left[-4:])
    assert trimming.trimmed(USING, 0, 10) == []


def test_sparse_chunks_that_follow_each_other_become_one() -> None:
    stream = create()
    for number in range(4):
        append(stream, *(change("a", number) for _ in range(3)))
    compact_keys(later())
    assert Chunk.objects.filter(stream=stream).count() == 2  # the second has the last message
    assert list(stream.read()) == [change("a", 3)]


def test_pages_of_a_sparse_stream_have_the_size_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = create()
    for number in range(40):
        append(stream, change("a", "x" * 200), change(f"k{number}", 1))
    compaction.compact(USING, [stream.pk])
    compact_keys(later())
    expected = list(stream.read())
    assert len(expected) == 41
    info = log_reader.find_ids([stream.pk], USING)[stream.pk]
    cache = SegmentCache(1 << 20)
    for _ in range(2):  # from the database, and from the cache
        position, pages, messages = 0, 0, []
        while position < info.tail:
            page = log_reader.pages([PageRequest(info, position, 1000)], cache, USING)[stream.pk, position]
            assert page is not None
            assert page.data
            messages += [json.loads(message.data) for message in page.messages(JSON) if message.end > position]
            position, pages = page.end, pages + 1
        assert messages == expected
        assert pages < 8  # the range is four times as large as the data


@pytest.mark.slow
def test_a_read_comes_through_any_number_of_chunks_without_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_passes, "BYTES", 1)  # so that each chunk stays for itself
    stream = create()
    for number in range(200):
        group_commit.apply([Append("s/a", JSON, line(change("a", number)))], USING)
    compact_keys(later())
    assert Chunk.objects.filter(stream=stream).count() == 200
    info = log_reader.find_ids([stream.pk], USING)[stream.pk]
    queries = []
    with connection.execute_wrapper(lambda execute, *query: (queries.append(query[0]), execute(*query))[1]):
        page = log_reader.pages([PageRequest(info, 0, 100)], SegmentCache(0), USING)[stream.pk, 0]
    assert page is not None
    assert (page.start, page.end, page.data) == (0, info.tail, line(change("a", 199)))
    assert len(queries) < 24  # of 14,000 bytes, 800 at a time


def test_a_page_after_removed_messages_has_the_size_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_passes, "BYTES", 1)
    stream = create()
    append(stream, *(change("a", "x" * 300) for _ in range(5)), *(change(f"k{number}", 1) for number in range(50)))
    append(stream, change("a", 1))
    compact_keys(later())
    info = log_reader.find_ids([stream.pk], USING)[stream.pk]
    cache = SegmentCache(1 << 20)
    for _ in range(2):
        page = log_reader.pages([PageRequest(info, 0, 300)], cache, USING)[stream.pk, 0]
        assert page is not None
        assert [json.loads(one.data)["key"] for one in page.messages(JSON)] == ["k0", "k1", "k2", "k3"]


def test_an_old_segment_of_the_cache_does_not_outlive_a_delete() -> None:
    now = SegmentCache(1 << 20, max_age=1e9)
    segment = Segment(0, b"1\n", [2])
    now.put(1, 0, segment)
    assert now.get(1, 0) is segment
    old = SegmentCache(1 << 20, max_age=-1.0)
    old.put(1, 0, segment)
    assert old.get(1, 0) is None
    for setting, seconds in (({"a/**": {"tombstones": 900}, "b": {}}, 300), ({}, None)):
        with override_streams(KEY_COMPACTION=setting):
            assert key_compaction.cache_seconds() == seconds


def test_caches_one_behind_the_other_do_not_outlive_a_delete_either() -> None:
    fresh, stale = map(int, re.findall(rb"=(\d+)", caching.PUBLIC))
    with override_streams(KEY_COMPACTION={"a/**": {"tombstones": MIN_TOMBSTONES}}):
        age = key_compaction.cache_seconds()
    assert age is not None
    assert age + fresh + stale < MIN_TOMBSTONES


def test_other_streams_are_left_alone() -> None:
    for path, kind in (("s/text", "text/plain"), ("else", JSON)):
        stream = Stream.objects.create(path=path, content_type=kind)
        for number in range(3):
            text = change("a", number)
            stream.append(text if kind == JSON else json.dumps(text))
    assert compact_keys(later()) == 0
    assert not Retention.objects.filter(key_compaction__isnull=False).exists()


def test_a_row_that_another_transaction_rolls_back_is_compacted_later() -> None:
    stream = create()
    append(stream, change("a", 1), change("a", 2))
    at = later()
    (job,) = due(at)
    present = Pass(USING, job)
    while present.scan():
        pass
    portion = present.find()
    assert portion is not None
    with transaction.atomic():
        assert key_compaction.replace(USING, job, portion)
        assert list(stream.read()) == [change("a", 2)]
        transaction.set_rollback(True)
    assert list(stream.read()) == [change("a", 1), change("a", 2)]
    compact_keys(at)
    assert list(stream.read()) == [change("a", 2)]


def test_producers_go_on() -> None:
    def one(number: int) -> Append:
        data = json.dumps(change("a", number)).encode() + b"\n"
        return Append("s/a", JSON, data, producer=ProducerClaim("p", 0, number))

    group_commit.apply([Create("s/a", JSON), *(one(number) for number in range(3))], USING)
    compact_keys(later())
    (outcome, repeated), _ = group_commit.apply([one(3), one(2)], USING)
    stream = Stream.objects.get(path="s/a")
    assert not isinstance(outcome, Exception)
    assert not isinstance(repeated, Exception)
    assert [value["value"] for value in stream.read()] == [2, 3]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"a/x*": {}}, "wildcard"),
        ({1: {}}, "must be a text"),
        ({"a": 60}, "must be a dict"),
        ({"a": {"age": 1}}, "unknown key: 'age'"),
        ({"a": {"delay": -1}}, "delay must be a whole number from 0"),
        ({"a": {"tombstones": 599}}, "from 600"),
        ({"a": {"newest_bytes": True}}, "not True"),
        ({"a": {"delay": 1.5}}, "not 1.5"),
    ],
)
def test_wrong_rules_are_refused_by_name(setting: Any, message: str) -> None:
    with pytest.raises(Exception, match=message) as refused:
        key_compaction_patterns(setting)
    assert isinstance(refused.value, InvalidParameter) or "wildcard" in message


def test_every_way_of_reading_goes_on_at_every_old_offset() -> None:
    stream = create()
    stream.append_many([change("a", 1), change("b", 1), change("a", 2)])
    append(stream, change("b", 2), change("c", 1), change("c", 2))
    old = [0, *(message.end for message in messages_of(stream))]
    compact_keys(later())
    left = messages_of(stream)
    info = log_reader.find_ids([stream.pk], USING)[stream.pk]
    for position in old:
        following = [message for message in left if message.end > position]
        consumed = StreamReader(info, position, USING).take(10)
        assert [(one.raw, one.end) for one in consumed] == [(message.data, message.end) for message in following]
        shown = browsing.after(info, position, limit=1000, count=10, using=USING)
        assert shown == [message for message in left if message.start >= position]
        before = browsing.before(info, position, limit=1000, count=10, using=USING)
        assert before == [message for message in left if message.end <= position]
        segments = [*command_segments(info, position, USING)]
        printed = [message for segment in segments for message in segment.messages(JSON)]
        assert [message for message in printed if message.end > position] == following


def test_the_sizes_of_chunks_are_found_without_their_data() -> None:
    """MariaDB and MySQL read all of it for its length: of 500 chunks for each portion."""
    stream = create()
    append(stream, change("a", 1), change("b", 1), change("a", 2), change("c", 1))
    compact_keys(later())
    append(stream, change("a", 3))
    (job,) = due(later(START + 100 * SECOND))
    queries: list[str] = []
    with connection.execute_wrapper(lambda execute, *query: (queries.append(query[0]), execute(*query))[1]):
        Pass(USING, job).scan()
    spans, contents = queries
    assert connection.ops.quote_name("data") not in spans
    assert connection.ops.quote_name("data") in contents
