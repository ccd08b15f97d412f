"""Batch workers: which tasks share a batch, and how each gets its result."""

import asyncio
from collections.abc import Iterator, Sequence
from threading import Event

import pytest

from django_durable_streams.engine import engine_for
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime.backlog import Backlog
from django_durable_streams.runtime.batch_worker import (
    COLLECT_FROM_TASKS,
    MAX_EXTRA_TURNS,
    PREPARE_FROM_TASKS,
    BatchWorker,
)
from django_durable_streams.runtime.collecting import Collector
from django_durable_streams.runtime.results import Reply


class Recorded(BatchWorker[int]):
    """Doubles numbers, one pending batch at a time, and records the size of each."""

    def __init__(self, batch_size: int = 1) -> None:
        self.sizes: list[int] = []
        connection = engine_for().monitor.new_connection()
        super().__init__("test", connection, self._double, Backlog(1000, 1000), batch_size)

    def _double(self, numbers: Sequence[int]) -> Sequence[int]:
        self.sizes.append(len(numbers))
        return [2 * number for number in numbers]


@pytest.fixture
def worker(engines: None) -> Iterator[Recorded]:
    worker = Recorded()
    yield worker
    worker.stop()


async def sizes_of(worker: Recorded, *turns: int) -> list[int]:
    """Submit so many tasks in each turn of the loop, and return the size of each pending batch."""
    replies = []
    for count in turns:
        replies += [worker.submit(number) for number in range(count)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*replies) == [2 * number for count in turns for number in range(count)]
    return worker.sizes


async def test_tasks_of_one_turn_share_a_batch(worker: Recorded) -> None:
    assert await sizes_of(worker, 10 * COLLECT_FROM_TASKS) == [10 * COLLECT_FROM_TASKS]


async def test_a_large_pending_batch_takes_in_the_tasks_of_the_next_turn(worker: Recorded) -> None:
    assert await sizes_of(worker, COLLECT_FROM_TASKS, COLLECT_FROM_TASKS, 1) == [2 * COLLECT_FROM_TASKS + 1]


async def test_a_small_pending_batch_does_not_wait(worker: Recorded) -> None:
    few = COLLECT_FROM_TASKS - 1
    assert await sizes_of(worker, 1, few, few) == [1, few, few]


async def test_a_pending_batch_waits_for_a_limited_number_of_turns(worker: Recorded) -> None:
    whole = (MAX_EXTRA_TURNS + 1) * COLLECT_FROM_TASKS
    assert await sizes_of(worker, *[COLLECT_FROM_TASKS] * 2 * (MAX_EXTRA_TURNS + 1)) == [whole, whole]


async def test_a_pending_batch_ends_at_the_limit_of_tasks(worker: Recorded) -> None:
    worker._backlog = Backlog(max_tasks=5, max_bytes=1000)
    replies = [worker.submit(number) for number in range(5)]
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            worker.submit(5)
    assert await asyncio.gather(*replies) == [0, 2, 4, 6, 8]
    assert await worker.submit(5) == 10


async def test_a_pending_batch_ends_at_the_limit_of_bytes(worker: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "data_of", bytes)  # of as many bytes as the number says
    worker._backlog = Backlog(max_tasks=100, max_bytes=10)
    replies = [worker.submit(size) for size in (4, 6, 0)]
    with pytest.raises(ServiceUnavailable):
        worker.submit(1)
    worker._backlog.remove(0, 1)  # another thread's tasks are done
    replies.append(worker.submit(1))
    assert await asyncio.gather(*replies) == [8, 12, 0, 2]


async def test_results_are_prepared_for_all_tasks_at_work_or_for_none(worker: Recorded) -> None:
    prepared: list[tuple[int, object]] = []

    class Noting(Reply):
        number = 0

        def prepare(self, value: object) -> None:
            prepared.append((self.number, value))

    def announcing(numbers: Sequence[int]) -> Sequence[int]:
        doubled = [2 * number for number in numbers]
        worker.prepare_results(doubled[1:])
        worker.prepare_results(doubled)
        return doubled

    worker._work = announcing
    for count in (PREPARE_FROM_TASKS - 1, PREPARE_FROM_TASKS):
        replies = [Noting() for _ in range(count)]
        for number, reply in enumerate(replies):
            reply.number = number
            worker.post(number, reply)
        assert await asyncio.gather(*replies) == [2 * number for number in range(count)]
    assert prepared == [(number, 2 * number) for number in range(PREPARE_FROM_TASKS)]


def test_a_stopped_loop_and_the_next_one_in_its_thread_have_separate_batches(worker: Recorded) -> None:
    async def submit(count: int) -> list[Reply]:
        return [worker.submit(number) for number in range(count)]

    async def outcomes_of(replies: list[Reply]) -> list[object]:
        return [await reply for reply in replies]

    async def submit_and_wait(count: int) -> list[object]:
        return await outcomes_of(await submit(count))

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        open_still = first.run_until_complete(submit(COLLECT_FROM_TASKS))
        assert not worker.sizes
        assert second.run_until_complete(asyncio.wait_for(submit_and_wait(2), 10)) == [0, 2]
        assert first.run_until_complete(asyncio.wait_for(outcomes_of(open_still), 10)) == [0, 2, 4, 6]
    finally:
        first.close()
        second.close()
    assert worker.sizes == [2, COLLECT_FROM_TASKS]


async def test_a_large_pending_batch_is_queued_when_no_task_follows(worker: Recorded) -> None:
    assert await sizes_of(worker, COLLECT_FROM_TASKS, 0, 0, 0, 1) == [COLLECT_FROM_TASKS, 1]


class Patient(Collector):
    """Waits for all tasks, however long they take, and says when it waits with a number of them."""

    awaited = 0

    def __init__(self) -> None:
        super().__init__()
        self.waits = Event()
        self.is_started = Event()

    def start(self, done: int, waiting: int, seconds: float) -> None:
        super().start(done, waiting, seconds)
        self.is_started.set()

    def seconds_left(self, count: int) -> float:
        if count == self.awaited:
            self.waits.set()
        return 30.0 if count < self._wanted else 0.0


class Competing(Recorded):
    """A worker that competes with other processes."""

    def __init__(self) -> None:
        self.patient = Patient()
        super().__init__(batch_size=1000)
        self._collector = self.patient

    def competes(self) -> bool:
        return True

    async def finish(self, count: int) -> None:
        """Submit tasks, and wait for their results, and until the thread will wait for as many."""
        await sizes_of(self, count)
        assert await asyncio.to_thread(self.patient.is_started.wait, 20)

    async def take(self, count: int) -> list[Reply]:
        """Submit tasks, and wait until the thread has them and waits for more."""
        self.patient.awaited = count
        replies = [self.submit(number) for number in range(count)]
        assert await asyncio.to_thread(self.patient.waits.wait, 20)
        return replies


@pytest.fixture
def competing(engines: None) -> Iterator[Competing]:
    worker = Competing()
    yield worker
    worker.stop()


async def test_a_worker_that_competes_waits_for_the_clients_that_it_has_answered(competing: Competing) -> None:
    await competing.finish(COLLECT_FROM_TASKS + 5)
    first = await competing.take(COLLECT_FROM_TASKS)
    assert competing.sizes == [COLLECT_FROM_TASKS + 5]
    await asyncio.gather(*first, *[competing.submit(number) for number in range(5)])
    assert competing.sizes == [COLLECT_FROM_TASKS + 5] * 2


class HoldsBack(Competing):
    """A worker that holds results back. It competes during its first batch, and may stand still in a later one."""

    delays_results = True

    def __init__(self) -> None:
        self.works = Event()
        self.goes_on = Event()
        self.goes_on.set()
        super().__init__()

    def competes(self) -> bool:
        return len(self.sizes) == 1

    def _double(self, numbers: Sequence[int]) -> Sequence[int]:
        values = super()._double(numbers)
        self.works.set()
        assert self.goes_on.wait(20)
        return values


async def test_no_result_is_held_back_while_a_worker_waits_for_tasks(engines: None) -> None:
    """The other process has stopped writing, so the second batch competes no more."""
    worker = HoldsBack()
    await worker.finish(COLLECT_FROM_TASKS + 5)
    worker.goes_on.clear()
    worker.works.clear()
    first = [worker.submit(number) for number in range(COLLECT_FROM_TASKS + 5)]
    assert await asyncio.to_thread(worker.works.wait, 20)
    second = worker.submit(2)
    await asyncio.sleep(0)  # the turn in which it is queued
    assert not worker._queue.empty()
    worker.goes_on.set()
    async with asyncio.timeout(20):
        assert await asyncio.gather(*first) == [2 * number for number in range(COLLECT_FROM_TASKS + 5)]
        assert await second == 4
    worker.stop()


async def test_the_end_of_a_worker_ends_its_wait(competing: Competing) -> None:
    await competing.finish(COLLECT_FROM_TASKS + 5)
    replies = await competing.take(2)
    await asyncio.wait_for(asyncio.to_thread(competing.stop), 20)
    assert await asyncio.gather(*replies) == [0, 2]


async def test_other_work_ends_the_wait_of_a_worker(competing: Competing) -> None:
    await competing.finish(COLLECT_FROM_TASKS + 5)
    replies = await competing.take(2)
    sizes = await asyncio.wait_for(asyncio.to_thread(competing.between, lambda: [*competing.sizes]), 20)
    assert sizes == [COLLECT_FROM_TASKS + 5, 2]
    assert await asyncio.gather(*replies) == [0, 2]


async def test_tasks_after_the_end_are_refused_at_once(worker: Recorded) -> None:
    await sizes_of(worker, 1)
    early = [worker.submit(number) for number in range(COLLECT_FROM_TASKS)]  # not handed over yet
    await asyncio.to_thread(worker.stop)
    late = worker.submit(1)
    for reply in (*early, late):
        with pytest.raises(ServiceUnavailable, match="about to end"):
            await reply
    with pytest.raises(ServiceUnavailable, match="about to end") as raised:
        await asyncio.to_thread(worker.between, list)
    assert raised.value.code() == "service-unavailable"


async def test_every_task_gets_a_result_whenever_the_end_comes(engines: None) -> None:
    for _ in range(30):
        worker = Recorded()
        replies: list[asyncio.Future[object]] = []
        stopping = asyncio.ensure_future(asyncio.to_thread(worker.stop))
        while not stopping.done():
            if len(replies) < 900:
                replies += [worker.submit(7) for _ in range(COLLECT_FROM_TASKS)]
            await asyncio.sleep(0)
        answers = await asyncio.gather(*replies, return_exceptions=True)
        assert all(answer == 14 or isinstance(answer, ServiceUnavailable) for answer in answers)
