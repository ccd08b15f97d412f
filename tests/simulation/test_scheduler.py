"""One thread at a time, as a seed decides; and time that passes only when nobody can go on."""

import random
import threading
from collections.abc import Callable

import pytest

from . import primitives
from .primitives import Condition, Event, Lock, SimpleQueue, Thread
from .scheduler import Scheduler


class Process:
    """What a task belongs to."""

    name = "process"

    def __init__(self, scheduler: Scheduler) -> None:
        self.is_dead = False
        self.tasks: list[object] = []
        self._scheduler = scheduler

    def spawn(self, function: Callable[[], object], name: str) -> object:
        task = self._scheduler.spawn(self, function, name)
        self.tasks.append(task)
        return task

    def enter(self) -> None:
        pass

    def thread_ends(self, task: object) -> None:
        pass


def run(seed: int, main: Callable[[], object], process: type[Process] = Process) -> Scheduler:
    scheduler = Scheduler(random.Random(seed), switching=0.5)
    primitives.use(scheduler)
    scheduler.run(process(scheduler), main)
    return scheduler


def interleaving(seed: int) -> tuple[list[int], int]:
    result: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            result.append(number)
            primitives.scheduler.pause()

    def main() -> None:
        threads = [Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return result, run(seed, main).digest


def test_a_seed_decides_the_run_and_seeds_differ() -> None:
    assert interleaving(1) == interleaving(1)
    assert len({tuple(interleaving(seed)[0]) for seed in range(10)}) > 5


def test_time_passes_only_when_nobody_can_go_on() -> None:
    moments = []

    def main() -> None:
        began = primitives.scheduler.now
        Thread(target=lambda: (primitives.scheduler.sleep(3600), moments.append("late"))).start()
        for _ in range(100):
            primitives.scheduler.pause()
        assert primitives.scheduler.now == began
        primitives.scheduler.sleep(7200)
        moments.append(primitives.scheduler.now - began)  # type: ignore[arg-type]

    run(1, main)
    assert moments == ["late", 7200]


@pytest.mark.parametrize("seed", range(20))
def test_a_lock_is_held_by_one(seed: int) -> None:
    lock, inside, most = Lock(), [], []

    def work() -> None:
        for _ in range(3):
            with lock:
                inside.append(1)
                most.append(len(inside))
                primitives.scheduler.pause()
                inside.pop()

    def main() -> None:
        threads = [Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert not run(seed, main).failures
    assert max(most) == 1
    assert len(most) == 12


@pytest.mark.parametrize("seed", range(20))
def test_what_is_put_is_got_once_and_in_order(seed: int) -> None:
    queue = SimpleQueue()
    got: list[object] = []

    def main() -> None:
        thread = Thread(target=lambda: got.extend(queue.get() for _ in range(10)))
        thread.start()
        for number in range(10):
            queue.put(number)
        thread.join()

    assert not run(seed, main).failures
    assert got == list(range(10))


@pytest.mark.parametrize("seed", range(10))
def test_waits_end_by_news_or_by_time(seed: int) -> None:
    result = []

    def main() -> None:
        event, condition = Event(), Condition()
        result.append(event.wait(1.0))
        with condition:
            result.append(condition.wait(1.0))
        Thread(target=event.set).start()
        result.append(event.wait(1.0))

    run(seed, main)
    assert result == [False, False, True]


def test_two_who_wait_for_each_other_are_a_failure() -> None:
    def main() -> None:
        first, second = Lock(), Lock()
        first.acquire()
        second.acquire()
        Thread(target=second.acquire).start()
        first.acquire()

    scheduler = run(1, main)
    assert "Nobody can go on" in scheduler.failures[0]


def test_a_thread_that_dies_is_a_failure() -> None:
    def main() -> None:
        Thread(target=lambda: 1 / 0, name="divider").start()
        primitives.scheduler.sleep(1)

    assert "The thread divider died" in run(1, main).failures[0]


def test_a_killed_process_does_nothing_more() -> None:
    done = []

    class Other(Process):
        name = "other"

    def main() -> None:
        scheduler = primitives.scheduler
        other = Other(scheduler)

        def work() -> None:
            try:
                while True:
                    scheduler.sleep(1)
                    done.append(scheduler.now)
            finally:
                scheduler.pause()
                done.append("more")  # type: ignore[arg-type]

        other.spawn(work, "work")
        scheduler.sleep(3.5)
        other.is_dead = True
        scheduler.kill(other.tasks)  # type: ignore[arg-type]
        scheduler.sleep(10)

    assert not run(1, main).failures
    assert len(done) == 3


def test_no_thread_is_left() -> None:
    before = threading.active_count()

    def main() -> None:
        for _ in range(5):
            Thread(target=Event().wait).start()

    run(1, main)
    assert threading.active_count() == before
