"""The cost of a subscription for appends: the same appends to a stream without a link, and to one with links.

    python -m benchmarks.linked [--target sqlite] [--rounds 5] [--seconds 2] [--connections 64] [--subscriptions 1]

The measurements alternate, so other load on the machine affects both. The receiver of the webhooks answers at once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack

from benchmarks.client import Client
from benchmarks.outcome import MeasurementError
from benchmarks.targets import POSTGRESQL, SQLITE, make
from benchmarks.webhooks import Receivers, subscribe
from benchmarks.workload import Bench, body_file
from benchmarks.writes import BINARY, WARM_UP_SECONDS, Append, binary

NAMES = {"without a link": "others/1", "linked": "measured/1"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.linked", description=__doc__)
    parser.add_argument("--target", choices=(SQLITE, POSTGRESQL), default=SQLITE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--subscriptions", type=int, default=1)
    options = parser.parse_args()
    target = make(options.target)
    receivers = Receivers()
    append = Append(connections=options.connections)
    rates: dict[str, list[float]] = {title: [] for title in NAMES}
    with ExitStack() as stack:
        stack.enter_context(receivers.running())
        stack.callback(target.stop)
        address = target.start()
        client = stack.enter_context(Client(address))
        file = stack.enter_context(body_file(binary(append.size)))
        for number in range(options.subscriptions):
            subscribe(client, f"s{number}", f"http://127.0.0.1:{receivers.port}/living")
        for name in NAMES.values():
            client.create(name, BINARY)
        for seconds in (WARM_UP_SECONDS, *[options.seconds] * options.rounds):
            for title, name in NAMES.items():
                counts = append.drive(Bench(address, None, seconds, name), file, BINARY, seconds)
                if counts.errors:
                    raise MeasurementError(f"{title}: {'; '.join(counts.errors)}")
                rates[title].append(counts.rate)
    medians = {title: statistics.median(samples[1:]) for title, samples in rates.items()}
    print(", ".join(f"{title} {rate:,.0f}/s" for title, rate in medians.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
