"""Large streams and idle clients do not fill a server's memory."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.entry_points.exchange import live
from tests.entry_points.probed import MIB, ProbedServer, memory_of, wait_until
from tests.servers import Kind

BYTES = "application/octet-stream"
LIMIT = 200 * MIB
READERS = 4
IDLE_READERS = 10
SSE_MB = 50
"""For each reader: so much for all of them would not fit into the limit, and it takes several responses."""

# What one event stream may send before it ends: servers that do not wait for their clients buffer as much for each.
SSE_MAX_BYTES = 16 * MIB
# These keep what their clients do not take; a part of it twice, for a moment, as their buffers grow.
BUFFERING = {"daphne", "granian"}


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[ProbedServer, str]]:
    """A server with a stream of 200 MB, written by itself in appends of 1 MB."""
    with ProbedServer() as server:
        path = server.create(kind=BYTES)
        with httpx.Client(timeout=30) as client:
            for number in range(200):
                response = client.post(server.url(path), content=block(number), headers={"Content-Type": BYTES})
                assert response.status_code == 204
        yield server, path


def test_four_readers_of_200_mb_at_once_leave_memory_bounded(large: tuple[ProbedServer, str]) -> None:
    server, path = large
    with ThreadPoolExecutor(READERS) as pool:
        assert list(pool.map(lambda _: read_to_the_end(server, path), range(READERS))) == [200 * MIB] * READERS
    peak = server.memory_peak()
    print(f"writing and reading 200 MB: peak {peak / MIB:.0f} MB")
    assert peak < LIMIT


def test_four_event_streams_of_50_mb_at_once_leave_memory_bounded(large: tuple[ProbedServer, str]) -> None:
    server, path = large
    generation, _, _ = httpx.head(server.url(path), timeout=30).headers["stream-next-offset"].partition("_")
    start = f"{generation}_{(200 - SSE_MB) * MIB:016d}"
    with ThreadPoolExecutor(READERS) as pool:
        responses = list(pool.map(lambda _: follow_to_the_end(server, path, start), range(READERS)))
    peak = server.memory_peak()
    print(f"{SSE_MB} MB by SSE in {responses} responses: peak {peak / MIB:.0f} MB")
    assert min(responses) > SSE_MB * MIB // SSE_MAX_BYTES
    assert peak < LIMIT


@pytest.mark.parametrize("kind", ["uvicorn", "daphne", "granian", "hypercorn"])
def test_readers_that_do_not_read_leave_memory_bounded(kind: Kind) -> None:
    with ProbedServer(kind) as server, ExitStack() as stack:
        path = server.create(kind=BYTES)
        for number in range(40):
            server.append(path, block(number), kind=BYTES)
        pid = server.probe().pid
        before = memory_of(pid, "VmRSS")
        for _ in range(IDLE_READERS):
            stack.enter_context(live(server.port, path, "sse", receive_buffer=4096))
        settle(pid)
        peak = memory_of(pid, "VmHWM")
        print(f"{kind}: {before / MIB:.0f} MB, then peak {peak / MIB:.0f} MB")
        assert peak < (before + 2 * IDLE_READERS * SSE_MAX_BYTES if kind in BUFFERING else LIMIT)


def block(number: int) -> bytes:
    """A megabyte that differs from the others."""
    return number.to_bytes(4, "big") * (MIB // 4)


def read_to_the_end(server: ProbedServer, path: str) -> int:
    """Read a stream page by page, and return how many bytes it has. Its blocks must be in order."""
    size, offset = 0, "-1"
    with httpx.Client(timeout=60) as client:
        while True:
            response = client.get(server.url(path), params={"offset": offset})
            assert response.status_code == 200
            for first in range(0, len(response.content), MIB):
                assert response.content[first : first + 4] == ((size + first) // MIB).to_bytes(4, "big")
            size += len(response.content)
            offset = response.headers["Stream-Next-Offset"]
            if "Stream-Up-To-Date" in response.headers:
                return size


def follow_to_the_end(server: ProbedServer, path: str, offset: str) -> int:
    """Follow a stream by SSE until it is up to date, and return how many responses that took."""
    responses = 0
    while True:
        responses += 1
        with live(server.port, path, "sse", offset, timeout=60) as reader:
            assert reader.response.status == 200
            for event in reader.events():
                if event.kind == "control":
                    state = json.loads(event.data)
                    offset = state["streamNextOffset"]
                    if state.get("upToDate"):
                        return responses


def settle(pid: int) -> None:
    """Wait until a process's memory has not grown for a second."""
    peak, since = 0, time.monotonic()

    def still() -> bool:
        nonlocal peak, since
        now = memory_of(pid, "VmHWM")
        if now != peak:
            peak, since = now, time.monotonic()
        return time.monotonic() - since >= 1

    wait_until(still, 60, "memory has stopped growing")
