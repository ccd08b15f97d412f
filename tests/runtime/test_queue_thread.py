"""A thread with a queue: it handles everything in order, rests, ends, begins again, and outlives its work."""

import threading
from collections.abc import Callable, Iterator
from queue import Queue

import pytest

from django_durable_streams.runtime.queue_thread import QueueThread


@pytest.fixture
def handled() -> Queue[object]:
    return Queue()


@pytest.fixture
def make() -> Iterator[Callable[..., QueueThread[object]]]:
    made: list[QueueThread[object]] = []

    def make(handle: Callable[[object], object], *options: object) -> QueueThread[object]:
        made.append(QueueThread("durable-streams-test", handle, *options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.stop(20)


def test_items_are_handled_in_order_by_a_thread_that_begins_with_the_first(
    make: Callable[..., QueueThread[object]], handled: Queue[object]
) -> None:
    before = threading.active_count()
    thread = make(lambda item: handled.put((item, threading.current_thread().name)))
    assert threading.active_count() == before
    for number in range(100):
        thread.put(number)
    assert [handled.get(timeout=20) for _ in range(100)] == [(number, "durable-streams-test") for number in range(100)]


def test_what_waits_is_handled_before_the_end_and_another_item_begins_again(
    make: Callable[..., QueueThread[object]], handled: Queue[object]
) -> None:
    go_on = threading.Event()

    def handle(item: object) -> None:
        assert go_on.wait(20)
        handled.put(item)

    thread = make(handle)
    for number in range(3):
        thread.put(number)
    go_on.set()
    thread.stop(20)
    assert [handled.get_nowait() for _ in range(3)] == [0, 1, 2]
    thread.put(3)
    assert handled.get(timeout=20) == 3


def test_a_thread_that_does_not_end_in_time_is_left(make: Callable[..., QueueThread[object]]) -> None:
    began, go_on = threading.Event(), threading.Event()

    def handle(item: object) -> None:
        began.set()
        assert go_on.wait(20)

    thread = make(handle)
    thread.put(1)
    assert began.wait(20)
    thread.stop(0)
    go_on.set()


def test_the_work_takes_what_waits_and_leaves_the_end(
    make: Callable[..., QueueThread[object]], handled: Queue[object]
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def handle(item: object) -> None:
        began.set()
        assert go_on.wait(20)
        handled.put([item, *thread.take_waiting()])

    thread = make(handle)
    thread.put(0)
    assert began.wait(20)
    for number in range(1, 4):
        thread.put(number)
    assert len(thread) == 3
    go_on.set()
    thread.stop(20)
    assert handled.get_nowait() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_it_outlives_whatever_its_work_raises(
    make: Callable[..., QueueThread[object]],
    handled: Queue[object],
    kind: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handle(item: object) -> None:
        if item == "bad":
            raise kind("a bug")
        handled.put(item)

    thread = make(handle)
    for item in ("bad", "good", "bad", "better"):
        thread.put(item)
    assert [handled.get(timeout=20), handled.get(timeout=20)] == ["good", "better"]
    assert caplog.text.count("durable-streams-test met an error") == 2


def test_it_rests_when_nothing_comes_and_before_its_end(
    make: Callable[..., QueueThread[object]], handled: Queue[object]
) -> None:
    thread = make(handled.put, lambda: handled.put("rest"), 0.001)
    thread.put("item")
    while (first := handled.get(timeout=20)) == "rest":  # the thread may have waited for the item
        pass
    assert [first, handled.get(timeout=20)] == ["item", "rest"]
    thread.stop(20)
    *_, last = handled.queue
    assert last == "rest"


def test_a_thread_that_cannot_start_is_tried_again(
    make: Callable[..., QueueThread[object]], handled: Queue[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot_start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thread = make(handled.put)
    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "start", cannot_start)
        with pytest.raises(RuntimeError):
            thread.put("lost")
    assert not len(thread)
    thread.put("item")
    assert handled.get(timeout=20) == "item"
