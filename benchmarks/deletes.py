"""Deletes of many small streams by `manage.py streams delete`, and their purge by `manage.py streams prune`.

    python -m benchmarks.deletes [--target sqlite] [--streams 100000]

It needs no server. For each step it prints streams a second, and the processor time and statements for a stream.
"""

from __future__ import annotations

import argparse
import io

from benchmarks.local_database import TARGETS, Meter, local_database

PORTION = 500


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deletes", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="sqlite")
    parser.add_argument("--streams", type=int, default=100_000)
    options = parser.parse_args()
    with local_database(options.target):
        measure(options.streams)


def measure(count: int) -> None:
    from django.core.management import call_command

    from django_durable_streams.models import Stream

    fill(count)
    for words in (["delete", "bench/**", "--no-input"], ["prune", "--no-input"]):
        with Meter() as meter:
            call_command("streams", *words, stdout=io.StringIO(), stderr=io.StringIO(), verbosity=0)
        seconds, cpu, statements = meter.used
        print(
            f"{words[0]:>6}: {count / seconds:8,.0f} streams a second, {cpu / count * 1e6:6.0f} us of processor time "
            f"and {statements / count:.3f} statements for a stream",
            flush=True,
        )
    assert not Stream.objects.exists()


def fill(count: int) -> None:
    """Create streams with one message of 100 bytes each."""
    from django_durable_streams.store.operations import Create
    from django_durable_streams.store.write import group_commit

    kind, data = "application/octet-stream", b"x" * 100
    for first in range(0, count, PORTION):
        numbers = range(first, min(first + PORTION, count))
        group_commit.apply([Create(f"bench/{number:07}", kind, data=data) for number in numbers], "default")


if __name__ == "__main__":
    main()
