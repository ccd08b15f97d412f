"""A job that writes tokens into a stream at a steady pace, as one that asks a language model does.

python -m tests.cluster.token_job PATH COUNT PER_SECOND COMMITS

A token is a line: its number, and when it was written, by the machine's monotonic clock. The job makes the same tokens
each time, and may be killed and started again. To the file COMMITS it adds a line with the time of each of its commits.
"""

import asyncio
import sys
import time
from typing import Any, TextIO

import django

NAME = "the-job"


async def write(path: str, count: int, per_second: float) -> None:
    from django_durable_streams.models import Stream

    stream, _ = await Stream.objects.aensure(path, content_type="text/plain")
    async with stream.awriter(producer=NAME) as writer:
        first = writer.written
        began = time.monotonic()
        for number in range(first, count):
            await asyncio.sleep(max(began + (number - first) / per_second - time.monotonic(), 0))
            await writer.write(f"{number} {time.monotonic():.6f}\n")


def note_commits(file: TextIO) -> None:
    from django_durable_streams.signals import stream_appended

    def receive(**arguments: Any) -> None:
        file.write(f"{time.monotonic():.6f}\n")

    stream_appended.connect(receive, weak=False)


if __name__ == "__main__":
    django.setup()
    path, count, per_second, commits = sys.argv[1:]
    with open(commits, "a", buffering=1) as file:
        note_commits(file)
        asyncio.run(write(path, int(count), float(per_second)))
