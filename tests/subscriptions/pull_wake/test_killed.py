"""Worker processes that are killed: each message is handled, and one worker at a time has the lease."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests import preloaded
from tests.servers import ROOT, Server, example_environment

pytestmark = pytest.mark.cluster

MESSAGES = 80
BURST = 16
"""Messages that are appended together. A worker takes a tenth of a second for them."""

SECONDS = 90
STDERR = 2


class Workers:
    """Some worker processes, each replaced when it is killed, and what they have handled."""

    def __init__(self, arguments: list[str], env: dict[str, str], count: int) -> None:
        self._arguments = arguments
        self._env = env
        self.lines: list[tuple[int, int, int]] = []
        """Process, generation and message, in the order in which they were read."""
        self._threads: list[threading.Thread] = []
        self._begun: list[threading.Event] = []
        self.processes: list[preloaded.Process] = []
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.subscriptions.pull_wake.worker_job", *self._arguments]
        reading, writing = os.pipe()
        process = preloaded.start(command, cwd=ROOT, env=self._env, output=writing, errors=STDERR)
        os.close(writing)
        begun = threading.Event()
        thread = threading.Thread(target=self._read, args=(process.pid, reading, begun), daemon=True)
        thread.start()
        self._threads.append(thread)
        self.processes.append(process)
        assert begun.wait(SECONDS)

    def _read(self, pid: int, reading: int, begun: threading.Event) -> None:
        with os.fdopen(reading) as lines:
            for line in lines:
                begun.set()
                generation, _, value = line.strip().partition(" ")
                if value:
                    self.lines.append((pid, int(generation), int(value)))

    def kill_at_work(self, first: int) -> None:
        """Kill the worker that handles one of the messages from `first` on, and start another one."""
        until = time.monotonic() + SECONDS
        while not (at_work := [pid for pid, _, value in list(self.lines) if value >= first]):
            assert time.monotonic() < until
            time.sleep(0.002)
        process = next(process for process in self.processes if process.pid == at_work[0])
        process.kill()  # as a power cut would
        self.processes.remove(process)
        process.wait()
        self._start()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join()


@contextmanager
def running(kind: str, server: Server) -> Iterator[Workers]:
    arguments = ["s"] if kind == "local" else ["s", f"{server.base_url}/v1/stream/"]
    env = example_environment({"DATABASE_URL": server.database_url})
    workers = Workers(arguments, env, 3)
    try:
        yield workers
    finally:
        workers.close()


@pytest.mark.parametrize("kind", ["local", "url"])
def test_killed_workers_lose_no_message(kind: str) -> None:
    with Server(long_poll_timeout=2.0) as server, httpx.Client(base_url=f"{server.base_url}/v1/stream/") as client:
        json = {"content-type": "application/json"}
        config = {"type": "pull-wake", "pattern": "a/*", "wake_stream": "wake", "lease_ttl_ms": 1000}
        assert client.put("wake", headers=json).status_code == 201
        assert client.put("__ds/subscriptions/s", json=config).status_code == 201
        for path in ("a/0", "a/1"):
            assert client.put(path, headers=json).status_code == 201
        with running(kind, server) as workers:
            cursors: dict[str, str] = {}
            for first in range(0, MESSAGES, BURST):
                for one in (0, 1):
                    assert client.post(f"a/{one}", json=[*range(first + one, first + BURST, 2)]).is_success
                check_cursors(client, cursors)
                workers.kill_at_work(first)
            until = time.monotonic() + SECONDS
            while not is_done(client, cursors):
                assert time.monotonic() < until
                time.sleep(0.1)
        check(workers.lines)


def check_cursors(client: httpx.Client, cursors: dict[str, str]) -> None:
    for one in client.get("__ds/subscriptions/s").json()["streams"]:
        before = cursors.get(one["path"], "-1")
        assert before == "-1" or one["acked_offset"] >= before
        cursors[one["path"]] = one["acked_offset"]


def is_done(client: httpx.Client, cursors: dict[str, str]) -> bool:
    check_cursors(client, cursors)
    return all(client.head(path).headers["stream-next-offset"] == offset for path, offset in cursors.items())


def check(lines: list[tuple[int, int, int]]) -> None:
    """Each message was handled, in the order of its stream, and each generation belongs to one worker."""
    assert len(lines) > MESSAGES  # a worker has taken over
    assert {value for _, _, value in lines} == set(range(MESSAGES))
    owners: dict[int, Any] = {}
    for process, generation, _ in lines:
        assert owners.setdefault(generation, process) == process
    for number in range(2):
        wakes: dict[int, list[int]] = {}
        for _, generation, value in lines:
            if value % 2 == number:
                wakes.setdefault(generation, []).append(value)
        for values in wakes.values():
            assert values == sorted(set(values))
        seen = -2 + number
        for generation in sorted(wakes):  # no wake leaves out what the one before has not acknowledged
            assert wakes[generation][0] <= seen + 2
            seen = max(seen, wakes[generation][-1])
