"""Export and import of a gigabyte: the speed, and the memory that each process takes at most.

    python -m benchmarks.archive [--target sqlite] [--megabytes 1000]

It needs no server. The streams are of three sizes, from 100 KB to 100 MB, with appends of 1 KB.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.local_database import TARGETS, local_database, peak_megabytes, set_up

APPEND = 1000
SIZES = (100_000, 1_000_000, 100_000_000)
"""Bytes of a stream. A third of the data is in streams of each size."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.archive", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="sqlite")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--step", nargs=4, metavar=("COMMAND", "FOLDER", "URL", "MEGABYTES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(*options.step)
        return
    with tempfile.TemporaryDirectory(prefix="durable-streams-archive-") as folder, local_database(options.target):
        fill(options.megabytes * 1_000_000)
        measure("export", folder, options.megabytes)
        empty()
        measure("import", folder, options.megabytes)


def measure(command: str, folder: str, megabytes: int) -> None:
    """Run a command in a process of its own, so that its memory is its own."""
    import os

    words = [command, folder, os.environ["DATABASE_URL"], str(megabytes)]
    subprocess.run([sys.executable, "-m", "benchmarks.archive", "--step", *words], check=True)


def run_step(command: str, folder: str, url: str, megabytes: str) -> None:
    set_up(url)
    from django.core.management import call_command

    base = peak_megabytes()
    began = time.perf_counter()
    arguments = [str(Path(folder) / "archive")]
    call_command("streams", command, *arguments, stdout=io.StringIO(), stderr=io.StringIO(), verbosity=0)
    seconds = time.perf_counter() - began
    print(
        f"{command}: {int(megabytes) / seconds:6.1f} MB a second, {peak_megabytes():5.0f} MB of memory at most, of "
        f"which {base:.0f} MB are Django",
        flush=True,
    )


def fill(total: int) -> None:
    """Create streams with as many bytes of data."""
    from django_durable_streams.store.operations import Append, Create
    from django_durable_streams.store.write import group_commit

    kind = "application/octet-stream"
    appends = [bytes([number % 251]) * APPEND for number in range(100)]
    for size in SIZES:
        for number in range(max(total // len(SIZES) // size, 1)):
            path = f"bench/{size}/{number}"
            group_commit.apply([Create(path, kind)], "default")
            for _ in range(size // (APPEND * len(appends))):
                group_commit.apply([Append(path, kind, data) for data in appends], "default")


def empty() -> None:
    """Delete all streams, as in a new database."""
    from django.core.management import call_command

    for words in (["delete", "bench/**", "--no-input"], ["prune", "--no-input"]):
        call_command("streams", *words, stdout=io.StringIO(), stderr=io.StringIO(), verbosity=0)


if __name__ == "__main__":
    main()
