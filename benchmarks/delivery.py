"""Append to delivery: the time from sending an append until each waiting reader has received it.

A sample is the time from just before the POST is sent to the receipt, by one reader, of the data event (SSE)
or the response (long-poll) that carries the append. Each append gives as many samples as there are readers.
The time to the append's own answer is measured as well, also without readers.
Writer and readers are one process, so both ends are read from one clock.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from enum import Enum
from time import perf_counter

from benchmarks.client import Client
from benchmarks.fleet import Fleet, LongPollFleet, SseFleet
from benchmarks.outcome import MeasurementError, Outcome, percentile
from benchmarks.wire import encode_request
from benchmarks.workload import Bench

TEXT = "text/plain"
APPEND_BYTES = 100
WARM_UP_APPENDS = 5
# Long-polls cannot be seen to wait; this is long enough for the server to have read them all.
SETTLE_SECONDS = 0.5
LOST_AFTER_SECONDS = 15.0


class Live(Enum):
    SSE = "sse"
    LONG_POLL = "long-poll"


@dataclass(frozen=True)
class Delivery:
    """`appends` appends, each `interval` seconds after the one before, to `readers` waiting readers."""

    readers: int
    live: Live = Live.SSE
    appends: int = 30
    interval: float = 0.2
    fleet: type[Fleet] | None = None
    """The kind of the readers. None: that of `live`."""

    def run(self, bench: Bench) -> Outcome:
        appends = self.appends if bench.thorough else max(10, self.appends // 2)
        with Client(bench.address) as client:
            client.create(bench.name, TEXT)
            tail = client.append(bench.name, b"before the readers", TEXT).header("stream-next-offset")
            kind = self.fleet or (SseFleet if self.live is Live.SSE else LongPollFleet)
            with kind(bench.address, bench.name, self.readers) as fleet:
                # A collection in the client would be seen as a late delivery.
                gc.collect()
                gc.disable()
                try:
                    fleet.open(tail)
                    samples, answers = self._deliver(bench, fleet, appends)
                finally:
                    gc.enable()
                errors = tuple(dict.fromkeys(fleet.errors))
            bench.leave(bench.name)
        values = {"answer_p50": percentile(answers, 50) * 1e3, "answer_p99": percentile(answers, 99) * 1e3}
        if self.readers:
            values |= {"p50": percentile(samples, 50) * 1e3, "p99": percentile(samples, 99) * 1e3}
            values |= {"max": max(samples) * 1e3}
        return Outcome(values, errors)

    def _deliver(self, bench: Bench, fleet: Fleet, appends: int) -> tuple[list[float], list[float]]:
        samples: list[float] = []
        answers: list[float] = []
        slot = perf_counter() + SETTLE_SECONDS
        for number in range(WARM_UP_APPENDS + appends):
            while (left := slot - perf_counter()) > 0:
                fleet.pump(left)
            marker = f"<append {number:06}>".encode()
            body = marker.ljust(APPEND_BYTES, b".")
            request = encode_request("POST", bench.address, bench.name, body, {"Content-Type": TEXT})
            fleet.arm(marker)
            sent = fleet.write(request)
            deadline = sent + LOST_AFTER_SECONDS
            while not fleet.delivered:
                fleet.pump(0.05)
                if perf_counter() > deadline:
                    raise MeasurementError(f"{fleet.missing} of {self.readers} readers did not get an append")
            if number >= WARM_UP_APPENDS:
                samples += [arrival - sent for arrival in fleet.arrivals]
                answers.append(fleet.answered_at - sent)
            slot = max(slot + self.interval, perf_counter() + self.interval / 2)
        return samples, answers
