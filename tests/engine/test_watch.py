"""The data that a watch gives its readers when commits are lost, doubled, late or without data."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_durable_streams.engine import watch as watches
from django_durable_streams.engine.watch import Watch
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.store.stream_info import StreamInfo
from tests.event_stream import parse


def news(content: bytes, start: int, end: int) -> Segment:
    return Segment(start, content[start:end], range(start + 1, end + 1))


commits = st.lists(st.integers(1, 5), min_size=1, max_size=12)
# From one piece of news to the next: in order as a rule, but some are lost, and some come late or twice.
arrivals = st.lists(
    st.tuples(st.sampled_from([1, 1, 1, 1, 2, 3, 0, -1]), st.sampled_from([True, True, True, False])),
    min_size=1,
    max_size=25,
)


@given(commits, arrivals, st.integers(0, 6))
@settings(max_examples=200)
def test_readers_get_exact_bytes_up_to_the_tail_or_query_the_database(
    sizes: list[int], order: list[tuple[int, bool]], begin: int
) -> None:
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    content = bytes(range(48, 48 + ends[-1]))
    tail = min(begin, ends[-1])
    watch = Watch(StreamInfo(1, "a", "text/plain", tail=tail))
    pieces = list(pairwise(ends))
    number = -1
    for step, carries_data in order:
        number = min(max(number + step, 0), len(pieces) - 1)
        start, end = pieces[number]
        watch.feed(start, news(content, start, end) if carries_data else None, end, closed=False)
        tail = max(tail, end)
        assert watch.tail == tail
        for position in range(tail):
            segment = watch.segment_after(position)
            assert segment is None or (segment.start, segment.data) == (position, content[position:tail])
            frame = watch.frame(position, 7)
            assert (frame is None) == (segment is None)
            if frame is not None:
                parsed = parse(frame.chunk)
                assert (parsed.data, frame.end, frame.held) == ([content[position:tail].decode()], tail, b"")
                assert not frame.closed
        assert watch.segment_after(tail) is None


@given(commits)
def test_commits_in_order_are_all_at_hand(sizes: list[int]) -> None:
    content = bytes(range(48, 48 + sum(sizes)))
    watch = Watch(StreamInfo(1, "a", "text/plain"))
    for size in sizes:
        watch.feed(watch.tail, news(content, watch.tail, watch.tail + size), watch.tail + size, closed=False)
    segment = watch.segment_after(0)
    assert segment is not None
    assert segment.data == content
    assert list(segment.ends) == list(range(1, len(content) + 1))


class Counter:
    """A listener that counts what it hears."""

    def __init__(self) -> None:
        self.heard = 0

    def notify(self) -> None:
        self.heard += 1

    def tick(self, now: float) -> None:
        raise AssertionError


async def turns(number: int = 20) -> None:
    """Let the event loop turn, so that listeners are notified."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_listeners_are_notified_once_of_each_change() -> None:
    watch = Watch(StreamInfo(1, "a", "text/plain"))
    listener = Counter()
    watch.listeners.add(listener)  # type: ignore[arg-type]
    for _ in range(2):
        watch.feed(0, news(b"abc", 0, 3), 3, closed=False)
    await turns()
    assert listener.heard == 1
    for _ in range(2):
        watch.feed(3, None, 3, closed=True)
        await turns()
    assert (listener.heard, watch.closed) == (2, True)
    watch.feed(3, None, 3, closed=True, ended=True)
    await turns()
    assert (listener.heard, watch.ended) == (3, True)


class Answered(Counter):
    """A listener that leaves something to be done after all have heard."""

    def __init__(self, watch: Watch, done: list[int], all_heard: Callable[[], int]) -> None:
        super().__init__()
        self._watch, self._done, self._all_heard = watch, done, all_heard

    def notify(self) -> None:
        super().notify()
        self._watch.after_notify.append(lambda: self._done.append(self._all_heard()))


async def test_functions_after_a_notification_are_called_when_all_listeners_were_notified() -> None:
    watch = Watch(StreamInfo(1, "a", "text/plain"))
    done: list[int] = []
    listeners: list[Answered] = []
    for _ in range(3):
        listeners.append(Answered(watch, done, lambda: sum(each.heard for each in listeners)))
    watch.listeners.update(listeners)  # type: ignore[arg-type]
    watch.feed(0, news(b"abc", 0, 3), 3, closed=False)
    await turns()
    assert done == [3, 3, 3]
    assert not watch.after_notify


class Broken(Counter):
    """A listener that fails, then and afterwards."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def notify(self) -> None:
        self._watch.after_notify.append(self.fail)
        self.fail()

    def fail(self) -> None:
        raise RuntimeError("broken")


async def test_a_listener_that_fails_does_not_block_the_others(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(StreamInfo(1, "a", "text/plain"))
    others = [Counter() for _ in range(5)]
    watch.listeners.update(others, [Broken(watch)])  # type: ignore[arg-type, list-item]
    for end in (1, 2):
        watch.feed(end - 1, news(b"abc", end - 1, end), end, closed=False)
        await turns()
    assert [each.heard for each in others] == [2] * 5
    assert [record.exc_info is not None for record in caplog.records] == [True] * 4


def test_a_large_segment_is_dropped_once_its_readers_had_the_time_to_take_it() -> None:
    watch = Watch(StreamInfo(1, "a", "text/plain"))
    small, large = b"abc", bytes(watches.RING_BYTES + 1)
    watch.feed(0, Segment(0, small, [3]), 3, closed=False)
    watch.drop_large(watch.moved_at + 3600)
    assert watch.segment_after(0) is not None
    watch.feed(3, Segment(3, large, [3 + len(large)]), 3 + len(large), closed=False)
    watch.drop_large(watch.moved_at)
    snapshot = watch.snapshot(3)
    assert snapshot is not None
    watch.drop_large(watch.moved_at + watches.LARGE_SECONDS)
    assert (watch.snapshot(3), watch.segment_after(3), watch.frame(3, 0)) == (None, None, None)
    watch.feed(watch.tail, Segment(watch.tail, small, [watch.tail + 3]), watch.tail + 3, closed=False)
    assert watch.segment_after(watch.tail - 3) is not None


def test_an_old_commit_does_not_open_a_closed_stream() -> None:
    watch = Watch(StreamInfo(1, "a", "text/plain"))
    watch.feed(0, news(b"abc", 0, 3), 3, closed=True)
    watch.feed(0, news(b"abc", 0, 2), 2, closed=False)
    assert (watch.closed, watch.tail) == (True, 3)
    frame = watch.frame(0, 1)
    assert frame is not None
    assert parse(frame[0]).controls[0]["streamClosed"] is True


def growth(work: Callable[[], object]) -> int:
    """Bytes that are kept after some work."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_commits_of_a_few_bytes_take_no_more_memory_than_large_ones(size: int) -> None:
    watch = Watch(StreamInfo(1, "a", "text/plain"))

    def feed_many() -> None:
        for start in range(0, size * 5000, size):
            watch.feed(start, Segment(start, b"x" * size, [start + size]), start + size, closed=False)
        for position in range(size * 4700, size * 5000, size):
            watch.segment_after(position)
            watch.snapshot(position)

    assert growth(feed_many) < 1024 * 1024
    assert watch.segment_after(size * 4900) is not None


@pytest.mark.parametrize("size", [100, 1000, 200_000])
@pytest.mark.parametrize("held", [b"", b"\xe2"])
def test_readers_with_cursors_of_their_own_share_an_event(size: int, held: bytes) -> None:
    watch = Watch(StreamInfo(1, "a", "text/plain"))
    watch.feed(0, Segment(0, b"\n" * size, [size]), size, closed=False)
    first = watch.frame(0, 0, held)
    assert first is not None

    def ask() -> None:
        for cursor in range(500):
            frame = watch.frame(0, cursor, held)
            assert frame is not None
            assert frame.is_large == (len(frame.chunk) > 250_000)
            assert (frame.chunk is first.chunk) or not frame.is_large

    assert growth(ask) < 2 * 1024 * 1024


def test_trimmed_data_is_forgotten_and_the_data_after_it_is_not() -> None:
    content = b"abcdefghi"
    watch = Watch(StreamInfo(1, "a", "text/plain"))

    async def run() -> None:
        for start in (0, 3, 6):
            watch.feed(start, news(content, start, start + 3), start + 3, closed=False)
        assert watch.snapshot(0) is not None
        watch.forget_before(4)
        assert watch.segment_after(0) is None
        assert watch.snapshot(3) is None
        kept = watch.segment_after(6)
        assert kept is not None
        assert kept.data == b"ghi"
        watch.forget_before(9)
        assert watch.segment_after(6) is None
        assert watch.snapshot(9) is not None

    asyncio.run(run())
