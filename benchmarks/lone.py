"""The latency of a client that is alone: `python -m benchmarks.lone`

- An append at a time beside the disk: blocks of appends alternate with blocks of writes of 4 KB, each synced, on the
  same filesystem. So whatever slows the disk also slows the other.
- The answer to an append without readers and with 500 SSE readers: two streams of one server, whose appends alternate.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from benchmarks import targets
from benchmarks.__main__ import raise_open_file_limit
from benchmarks.client import Address, Client
from benchmarks.cpu import Meter
from benchmarks.delivery import TEXT
from benchmarks.fleet import SseFleet
from benchmarks.outcome import MeasurementError, percentile
from benchmarks.wire import connect, encode_request
from benchmarks.writes import binary

BODY_BYTES = 100
SYNC_BYTES = 4096
BLOCK = 50
"""Samples of one kind before the other has its turn."""

READERS = 500
PAUSE_SECONDS = 0.1
"""Time for the readers between two appends."""

MAX_OF_DISK, MAX_OF_NO_READERS = 1.6, 1.5


class Appender:
    """One connection that appends to one stream, one append at a time."""

    def __init__(self, address: Address, name: str) -> None:
        self._socket = connect(address)
        self._request = encode_request("POST", address, name, binary(BODY_BYTES), {"Content-Type": TEXT})

    def append(self) -> float:
        """Append once and return the time until the answer, in milliseconds."""
        began = perf_counter()
        self._socket.sendall(self._request)
        answer = self._socket.recv(4096)
        took = perf_counter() - began
        if not answer.startswith(b"HTTP/1.1 204"):
            raise MeasurementError(f"an append was answered with {answer[:80]!r}")
        return took * 1e3

    def close(self) -> None:
        self._socket.close()


@contextmanager
def syncing() -> Iterator[Callable[[], float]]:
    """Yield a function that writes 4 KB at the end of a file, syncs it, and returns the time in milliseconds."""
    with tempfile.NamedTemporaryFile(prefix="bench-sync-") as file:
        data = b"x" * SYNC_BYTES

        def sync() -> float:
            began = perf_counter()
            os.write(file.fileno(), data)
            os.fdatasync(file.fileno())
            return (perf_counter() - began) * 1e3

        yield sync


def alone(address: Address, pid: int | None, samples: int) -> list[str]:
    """Measure appends beside the disk, and return the lines of the table."""
    appends: list[float] = []
    syncs: list[float] = []
    with Client(address) as client, syncing() as sync:
        client.create("lone", TEXT)
        appender = Appender(address, "lone")
        for _ in range(BLOCK):
            appender.append(), sync()
        cpu = 0.0
        while len(appends) < samples:
            with Meter(pid) as meter:
                appends += [appender.append() for _ in range(BLOCK)]
            cpu += meter.seconds
            syncs += [sync() for _ in range(BLOCK)]
        appender.close()
    append, disk = percentile(appends, 50), percentile(syncs, 50)
    ratios = sorted(
        percentile(appends[first : first + BLOCK], 50) / percentile(syncs[first : first + BLOCK], 50)
        for first in range(0, samples, BLOCK)
    )
    return [
        f"| an append alone, p50, ms | {append:.3f} | |",
        f"| write and sync of 4 KB, p50, ms | {disk:.3f} | |",
        f"| the first / the second | {append / disk:.2f} | at most {MAX_OF_DISK} |",
        f"| the same in blocks of {BLOCK}: lowest, median, highest "
        f"| {ratios[0]:.2f}, {percentile(ratios, 50):.2f}, {ratios[-1]:.2f} | |",
        f"| processor time of the server for an append, µs | {cpu / len(appends) * 1e6:,.0f} | |",
    ]


def answers(address: Address, samples: int, readers: int) -> list[str]:
    """Measure answers to appends with and without readers, and return the lines of the table."""
    with Client(address) as client:
        for name in ("watched", "unwatched"):
            client.create(name, TEXT)
        tail = client.append("watched", binary(BODY_BYTES), TEXT).header("stream-next-offset")
        with SseFleet(address, "watched", readers) as fleet:
            gc.collect()
            gc.disable()
            try:
                fleet.open(tail)
                times = _alternate(address, fleet, samples)
            finally:
                gc.enable()
            if fleet.errors:
                raise MeasurementError("; ".join(dict.fromkeys(fleet.errors)))
    without, with_readers = (percentile(times[name], 50) for name in ("unwatched", "watched"))
    return [
        f"| an append's answer, no readers, p50, ms | {without:.3f} | |",
        f"| an append's answer, {readers} SSE readers, p50, ms | {with_readers:.3f} | |",
        f"| the second / the first | {with_readers / without:.2f} | at most {MAX_OF_NO_READERS} |",
    ]


def _alternate(address: Address, fleet: SseFleet, samples: int) -> dict[str, list[float]]:
    """Append to both streams by turns, at the same pace, and return the times of the answers."""
    times: dict[str, list[float]] = {"unwatched": [], "watched": []}
    appenders = {name: Appender(address, name) for name in times}
    for number in range(-3, samples):
        for name, appender in appenders.items():
            if name == "watched":
                fleet.arm(binary(BODY_BYTES))
            took = appender.append()
            until = perf_counter() + PAUSE_SECONDS
            while (left := until - perf_counter()) > 0:
                fleet.pump(left)
            if name == "watched" and fleet.missing:
                raise MeasurementError(f"{fleet.missing} readers did not get an append")
            if number >= 0:
                times[name].append(took)
    for appender in appenders.values():
        appender.close()
    return times


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lone", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--target", default=targets.SQLITE)
    parser.add_argument("--samples", type=int, default=2000, help="appends beside the disk")
    parser.add_argument("--answers", type=int, default=100, help="appends with readers, and as many without")
    parser.add_argument("--readers", type=int, default=READERS)
    options = parser.parse_args(arguments)
    raise_open_file_limit()
    target = targets.make(options.target)
    address = target.start()
    try:
        lines = alone(address, target.pid, options.samples) if options.samples else []
        lines += answers(address, options.answers, options.readers) if options.answers else []
    finally:
        target.stop()
    print("\n".join([f"| {target.title} | | to hold |", "|---|---:|---|", *lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
