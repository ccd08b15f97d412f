"""The cost of a fork: its creation beside an empty create, and a read of it beside a read of its source.

    python -m benchmarks.forks

It needs no server. It calls the store directly, on a SQLite file in a temporary folder.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

MEGABYTES = 100
REPEATS = 200
READS = 9
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print both ratios, of medians of alternating measurements."""
    with tempfile.TemporaryDirectory(prefix="durable-streams-forks-") as folder:
        os.environ["DATABASE_URL"] = f"sqlite:///{folder}/db.sqlite3"
        os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
        sys.path.insert(0, str(ROOT / "example_project"))
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        measure()


def measure() -> None:
    from django_durable_streams.store.operations import Append, Create, Fork
    from django_durable_streams.store.read import log_reader
    from django_durable_streams.store.read.segment_cache import SegmentCache
    from django_durable_streams.store.write import group_commit

    kind = "application/octet-stream"

    def timed(operation: Create) -> float:
        start = time.perf_counter()
        group_commit.apply([operation], "default")
        return time.perf_counter() - start

    def read(path: str) -> float:
        start = time.perf_counter()
        info = log_reader.find([path], "default")[path]
        assert isinstance(info, log_reader.StreamInfo)
        cache, position = SegmentCache(0), 0
        while position < info.tail:
            request = log_reader.PageRequest(info, position, 1 << 20)
            segment = log_reader.pages([request], cache, "default")[info.id, position]
            assert segment is not None
            position = segment.end
        return time.perf_counter() - start

    group_commit.apply([Create("source", kind)], "default")
    for _ in range(MEGABYTES):
        group_commit.apply([Append("source", kind, os.urandom(1 << 20))], "default")
    creates, forks = [], []
    for number in range(REPEATS):
        creates.append(timed(Create(f"empty-{number}", kind)))
        cut = None if number % 2 else (MEGABYTES // 2) << 20
        forks.append(timed(Create(f"fork-{number}", None, fork=Fork("source", cut))))
    report("create, empty", "fork of 100 MB", creates, forks)
    sources, copies = [], []
    for _ in range(READS):
        sources.append(read("source"))
        copies.append(read("fork-1"))
    report("read the source", "read the fork", sources, copies)


def report(first: str, second: str, one: list[float], other: list[float]) -> None:
    a, b = statistics.median(one) * 1000, statistics.median(other) * 1000
    print(f"{first}: {a:.3f} ms, {second}: {b:.3f} ms, ratio {b / a:.2f}")


if __name__ == "__main__":
    main()
