"""One thread at a time, chosen by a random number generator, and time that passes only when nobody can go on.

The threads are real ones, so whatever is kept by thread (Django's connections, a running event loop) works as ever. But
each waits at a gate of its own, and exactly one is let through. It hands over where a thread could lose the processor
in a way that matters: before a lock, a queue, a statement, a commit, a turn of an event loop. A seed decides who is
next, so it decides the run.
"""

import heapq
import random
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LIVELOCK_STEPS = 300_000
"""Switches without a moment passing after which nothing will ever pass."""


MOST_SECONDS = 5_000.0
"""Virtual seconds after which a run is taken for one that never ends."""


OUTSIDE = 0.02
"""Real seconds after which virtual time passes while all others wait outside."""

MOST_OUTSIDE = 60.0
"""Real seconds after which nobody will come back."""


class Killed(SystemExit):
    """The process of this thread is no more. A SystemExit, which event loops let through."""


class Task:
    """A thread under the scheduler.

    process: what it belongs to; has `is_dead` and `enter()`.
    """

    def __init__(self, scheduler: "Scheduler", process: Any, function: Callable[[], object], name: str) -> None:
        self.scheduler = scheduler
        self.process = process
        self.name = name
        self.number = scheduler.new_number()
        self.gate = threading.Lock()
        self.gate.acquire()
        self.is_over = False
        self.write_lock = 0
        """Counts its waits, so that a timer of an earlier one does not wake it."""
        self.is_blocked = False
        self.woken = False
        self.reaper: Task | None = None
        self.at_end: list[Callable[[], object]] = []
        self._function = function
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        self.gate.acquire()
        try:
            if not self.process.is_dead:
                self._function()
        except SystemExit:
            pass
        except BaseException:
            if not self.process.is_dead:
                self.scheduler.fail(f"The thread {self.name} died:\n{traceback.format_exc()}")
        finally:
            try:
                self.process.thread_ends(self)
            except SystemExit:
                pass
            self._function = _nothing
            self.is_over = True
            if not self.process.is_dead:
                for each in self.at_end:
                    each()
            self.scheduler.leave(self)

    def __repr__(self) -> str:
        return f"{self.process.name}/{self.name}"


def _nothing() -> None:
    """Stand for what has been done."""


class Scheduler:
    """Runs tasks one at a time.

    Args:
        rng: decides who is next.
        switching: how likely it is at each point that another task goes on.
        stalls: how likely it is at each point that a task is stopped for a while, as by a busy machine.
    """

    def __init__(self, rng: random.Random, switching: float, stalls: float = 0.0) -> None:
        self.rng = rng
        self.now = 1000.0
        """Virtual monotonic time in seconds."""
        self.skew = 1_700_000_000.0
        """What the clock on the wall shows at monotonic time 0."""
        self.switching = switching
        self.stalls = stalls
        self.current: Task | None = None
        self.failures: list[str] = []
        self.steps = 0
        self.digest = 0
        """Changes with each decision: two runs that have the same one were the same."""
        self._since_tick = 0
        self._is_timer = False
        self._ready: list[Task] = []
        self._timers: list[tuple[float, int, Any, int]] = []
        self._numbers = 0
        self._tasks: dict[int, Task] = {}
        self._first: Task | None = None
        self._is_closing = False
        self._is_over = False
        self._outside = 0
        self._returned: list[Task] = []
        self._return = threading.Condition()
        self._main_gate = threading.Lock()
        self._main_gate.acquire()

    def new_number(self) -> int:
        self._numbers += 1
        return self._numbers

    # Called from outside.

    def run(self, process: Any, function: Callable[[], object]) -> None:
        """Run a function as the first task until it returns, then end all others."""
        first = self._first = self.spawn(process, function, "main")
        self._ready.remove(first)
        self._enter(first)
        first.gate.release()
        while True:
            self._main_gate.acquire()
            after = None if self._is_over else self._wait_outside()
            if after is None:
                break
            self._enter(after)
            after.gate.release()
        self._is_closing = True
        for task in list(self._tasks.values()):
            self._end(task, None)
        self.current = None

    def spawn(self, process: Any, function: Callable[[], object], name: str) -> Task:
        """Start a task."""
        if process.is_dead:
            raise Killed
        task = Task(self, process, function, name)
        self._tasks[task.number] = task
        task.thread.start()
        self._ready.append(task)
        return task

    def fail(self, what: str) -> None:
        """Take note that something happened that must not."""
        self.failures.append(what)

    # Called by tasks.

    def pause(self) -> None:
        """A point at which another task may go on."""
        task = self.current
        if task is None or self._is_timer:
            return
        if task.process.is_dead:
            raise Killed
        rng = self.rng
        if self.stalls and rng.random() < self.stalls:
            self.sleep(rng.choice((0.001, 0.02, 0.3, 1.2)) * rng.random())
        elif self._ready and rng.random() < self.switching:
            self._ready.append(task)
            self._hand_over(task, self._take())

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass for the current task."""
        self.block(self.now + seconds)

    def block(self, deadline: float | None = None) -> bool:
        """Wait until somebody wakes the current task, or until a time; return whether somebody did."""
        task = self.current
        assert task is not None, "only tasks wait"
        if task.process.is_dead:
            raise Killed
        task.write_lock += 1
        task.is_blocked, task.woken = True, False
        if deadline is not None:
            heapq.heappush(self._timers, (deadline, self.new_number(), task, task.write_lock))
        self._hand_over(task, self._take())
        return task.woken

    def wake(self, task: Task) -> None:
        """Let a task go on that is blocked."""
        if task.is_blocked and not task.is_over and not task.process.is_dead:
            task.is_blocked, task.woken = False, True
            self._ready.append(task)

    def call_at(self, moment: float, function: Callable[[], object]) -> None:
        """Have a function called at a virtual time. It must not wait, and belongs to no process."""
        heapq.heappush(self._timers, (moment, self.new_number(), function, 0))

    def kill(self, tasks: Iterable[Task]) -> None:
        """End tasks whose process is dead: each leaves whatever it was in, without doing anything more."""
        for task in list(tasks):
            self._end(task, self.current)

    def leave(self, task: Task) -> None:
        """A task is over. It goes on with whoever is next."""
        self._tasks.pop(task.number, None)
        if task.reaper is not None:
            self._enter(task.reaper)
            task.reaper.gate.release()
        elif self._is_closing or task is self._first:
            self._is_over = True
            self._main_gate.release()
        else:
            self._let_go(self._take())

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Wait for something that the scheduler does not know, such as a database server: others go on meanwhile."""
        task = self.current
        assert task is not None, "only tasks wait"
        self._outside += 1
        self._let_go(self._take())
        try:
            yield
        finally:
            with self._return:
                self._returned.append(task)
                self._return.notify()
            task.gate.acquire()
            if task.process.is_dead:
                raise Killed

    def stacks(self) -> str:
        """Return where every task is."""
        frames = sys._current_frames()
        result = []
        for task in self._tasks.values():
            frame = frames.get(task.thread.ident or 0)
            lines = traceback.format_stack(frame)[-9:] if frame is not None else []
            result.append(f"{task!r}{' (blocked)' if task.is_blocked else ''}\n{''.join(lines)}")
        return "\n".join(result)

    def _end(self, task: Task, reaper: Task | None) -> None:
        if task.is_over or task is reaper:
            return
        task.process.is_dead = True
        task.reaper = reaper
        task.is_blocked = False
        if task in self._ready:
            self._ready.remove(task)
        self._enter(task)
        task.gate.release()
        (reaper.gate if reaper is not None else self._main_gate).acquire()
        task.thread.join()

    def _take(self) -> Task | None:
        """Return the next task to go on, letting time pass if there is none; None if there will not be one."""
        self._welcome()
        while not self._ready:
            if self._outside:
                return None  # the main thread waits for them
            if not self._timers:
                return self._give_up("Nobody can go on, and nothing will happen.")
            if self.now > 1000.0 + MOST_SECONDS:
                return self._give_up("The run does not come to its end.")
            self._pass_time()
        return self._choose()

    def _choose(self) -> Task | None:
        self.steps += 1
        self._since_tick += 1
        if self._since_tick > LIVELOCK_STEPS:
            return self._give_up("Tasks go on and on, and no time passes.")
        ready = self._ready
        place = int(self.rng.random() * len(ready))
        task = ready[place]
        ready[place] = ready[-1]
        ready.pop()
        self.digest = (self.digest * 1_000_003 + task.number * 8191 + place) & 0xFFFF_FFFF_FFFF
        return task

    def _welcome(self) -> None:
        """Take back those who were outside."""
        if self._outside:
            with self._return:
                returned, self._returned = self._returned, []
            self._outside -= len(returned)
            self._ready += [task for task in returned if not task.is_over and not task.process.is_dead]

    def _wait_outside(self) -> Task | None:
        """Return the next task when all others wait outside, or for a time: it passes while nobody comes back."""
        for _ in range(int(MOST_OUTSIDE / OUTSIDE)):
            with self._return:
                if not self._returned:
                    self._return.wait(OUTSIDE)
            self._welcome()
            if not self._ready and self._timers:
                self._pass_time()
            if self._ready:
                return self._choose()
        return self._give_up("Nobody comes back from outside.")

    def _pass_time(self) -> None:
        moment = self._timers[0][0]
        if moment > self.now:
            self.now = moment
            self._since_tick = 0
        while self._timers and self._timers[0][0] <= self.now:
            _, _, what, write_lock = heapq.heappop(self._timers)
            if not isinstance(what, Task):
                self._is_timer = True
                what()
                self._is_timer = False
            elif what.write_lock == write_lock and what.is_blocked and not what.process.is_dead:
                what.is_blocked = False
                self._ready.append(what)

    def _give_up(self, why: str) -> None:
        """End the run: it is a failure."""
        self.fail(f"{why}\n{self.stacks()}")
        self._is_over = True

    def _hand_over(self, task: Task, after: Task | None) -> None:
        if after is task:
            return
        self._let_go(after)
        task.gate.acquire()
        if task.process.is_dead:
            raise Killed

    def _let_go(self, after: Task | None) -> None:
        if after is not None:
            self._enter(after)
            after.gate.release()
        else:
            self._main_gate.release()

    def _enter(self, task: Task) -> None:
        before, self.current = self.current, task
        if before is None or before.process is not task.process:
            task.process.enter()
