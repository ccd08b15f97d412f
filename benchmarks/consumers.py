"""Consumers: messages handled a second, and the time from a commit to the handler.

The worker is a process of its own beside the server, as `manage.py streams_worker` is, on the server's database. Only
this server has consumers.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import Literal, Self

from benchmarks.outcome import MeasurementError, Outcome, percentile
from benchmarks.redis import running_redis
from benchmarks.workload import Bench

WARM_UP_APPENDS = 5
INTERVALS = 0.1, 0.2
"""Range of the time between two appends, in seconds."""

LOST_AFTER_SECONDS = 30.0
JOB_SECONDS = 120.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class ConsumerRate:
    """One worker that handles one stream of JSON messages of 100 B. Each batch changes a row in its transaction.

    messages: how many the stream has, so that a fast worker does not come to its end at once.
    """

    batch_size: int | Literal["auto"]
    messages: int

    def run(self, bench: Bench) -> Outcome:
        arguments = [self.batch_size, self.messages, bench.seconds]
        output = run_job(bench.project, "rate", bench.name, *arguments)
        run_job(bench.project, "clean", bench.name)
        return Outcome({"rate": float(output)})


@dataclass(frozen=True)
class ConsumerLatency:
    """One worker that waits, and another process that appends every 0.1 to 0.2 s with Python.

    has_redis: whether both have Redis. Without it the worker polls.
    """

    has_redis: bool
    appends: int = 60

    def run(self, bench: Bench) -> Outcome:
        appends = self.appends if bench.thorough else max(10, self.appends // 2)
        with running_redis() if self.has_redis else nullcontext("") as url:
            environment = {**bench.project, **({"REDIS_URL": url} if url else {})}
            with Job(environment, "handle", bench.name) as handler, Job(environment, "append", bench.name) as appender:
                samples = [_latency(appender, handler) for _ in range(WARM_UP_APPENDS + appends)]
            run_job(environment, "clean", bench.name)
        counted = samples[WARM_UP_APPENDS:]
        return Outcome({"p50": percentile(counted, 50) * 1e3, "p99": percentile(counted, 99) * 1e3})


def _latency(appender: Job, handler: Job) -> float:
    # It varies, so that appends keep no step with a poll.
    time.sleep(random.uniform(*INTERVALS))
    appender.ask()
    committed = appender.answer()
    return handler.answer() - committed


class Job:
    """A process that prints times, line by line. Use as a context manager. It ends when its input ends."""

    def __init__(self, environment: Mapping[str, str], *arguments: object) -> None:
        self._process = subprocess.Popen(
            _command(*arguments), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lines: Queue[str] = Queue()
        self._reader = Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def ask(self) -> None:
        """Send an empty line."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")

    def answer(self) -> float:
        """Return the time of the next line."""
        try:
            return float(self._lines.get(timeout=LOST_AFTER_SECONDS))
        except Empty:
            raise MeasurementError(f"no answer within {LOST_AFTER_SECONDS:g} s") from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.put(line)


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.consumer_job", *map(str, arguments)]


def run_job(environment: Mapping[str, str], *arguments: object) -> str:
    """Run a process to its end, and return its output."""
    done = subprocess.run(
        _command(*arguments), env=environment, capture_output=True, text=True, timeout=JOB_SECONDS, check=False
    )
    if done.returncode:
        raise MeasurementError(f"{arguments[0]}: {done.stderr.strip()[-600:]}")
    return done.stdout
