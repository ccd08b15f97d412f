"""The processes of the consumer rows, each with the settings of a target's project.

python -m benchmarks.consumer_job rate PATH BATCH_SIZE MESSAGES SECONDS | handle PATH | append PATH | clean PATH

`rate` fills a stream, handles it for some seconds, and prints the messages per second. The others print times of one
clock for all processes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from io import StringIO
from threading import Event
from typing import TYPE_CHECKING, Literal

import django

if TYPE_CHECKING:
    from django_durable_streams.consumers import Batch, Consumer
    from django_durable_streams.subscriptions.consumers.runner import Report

USING = "default"
JSON = "application/json"
PADDING = "x" * 74
"""Makes a message 100 bytes long."""

MESSAGES_PER_APPEND = 1000
STOP_SECONDS = 20.0


def execute(sql: str, *parameters: int) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def declare(path: str, batch_size: int | Literal["auto"], handler: Callable[[Batch], object]) -> Consumer:
    from django_durable_streams.consumers import consumer

    return consumer(path, name=name_of(path), batch_size=batch_size, start="beginning")(handler)


def name_of(path: str) -> str:
    return path.replace("/", ".")


def rate(path: str, batch_size: str, messages: str, seconds: str) -> None:
    """Print how many messages a worker handles a second. Each batch changes a row of a table."""
    from django_durable_streams.subscriptions.consumers.worker import Worker

    execute("CREATE TABLE IF NOT EXISTS bench_totals (id INTEGER PRIMARY KEY, total BIGINT)")
    execute("DELETE FROM bench_totals")
    execute("INSERT INTO bench_totals VALUES (1, 0)")
    fill(path, int(messages))

    def add(batch: Batch) -> None:
        total = sum(event["number"] for event in batch.messages)
        execute("UPDATE bench_totals SET total = total + %s WHERE id = 1", total)

    progress = Progress(int(messages), float(seconds))
    consumer = declare(path, "auto" if batch_size == "auto" else int(batch_size), add)
    worker = Worker([consumer], USING, progress.note)
    worker.start()
    progress.is_over.wait()
    worker.stop()
    worker.join(STOP_SECONDS)
    print(progress.rate)


class Progress:
    """Counts handled messages from the end of the first batch until there are enough, or the time is over."""

    def __init__(self, messages: int, seconds: float) -> None:
        self.is_over = Event()
        self.rate = 0.0
        self._left = messages
        self._seconds = seconds
        self._began = 0.0
        self._handled = 0

    def note(self, report: Report) -> None:
        """Count a batch. Called after its commit, in the worker's thread."""
        now = time.monotonic()
        self._left -= report.messages
        if not self._began:
            self._began = now
        elif not self.is_over.is_set():
            self._handled += report.messages
            self.rate = self._handled / (now - self._began)
        if self._left <= 0 or now - self._began > self._seconds:
            self.is_over.set()


def fill(path: str, messages: int) -> None:
    from django_durable_streams.models import Stream

    stream = Stream.objects.create(path=path, content_type=JSON)
    for first in range(0, messages, MESSAGES_PER_APPEND):
        count = min(MESSAGES_PER_APPEND, messages - first)
        stream.append_many([{"number": first + number, "padding": PADDING} for number in range(count)])


def handle(path: str) -> None:
    """Handle a stream until the input ends. Print the time at which the handler got each message."""
    from django_durable_streams.subscriptions.consumers.worker import Worker

    def note(batch: Batch) -> None:
        now = time.monotonic()
        for _ in batch.messages:
            print(now, flush=True)

    worker = Worker([declare(path, 100, note)], USING)
    worker.start()
    sys.stdin.read()
    worker.stop()
    worker.join(STOP_SECONDS)


def append(path: str) -> None:
    """Append a message for each line of the input. Print the time after each commit."""
    from django_durable_streams.models import Stream

    stream, _ = Stream.objects.ensure(path, content_type=JSON)
    for _ in sys.stdin:
        stream.append({"number": 1, "padding": PADDING})
        print(time.monotonic(), flush=True)


def clean(path: str) -> None:
    """Delete the consumer of a stream, and the stream."""
    from django.core.management import call_command

    from django_durable_streams.models import Stream

    Stream.objects.get(path=path).delete()
    call_command("streams", "delete", "--consumer", name_of(path), stdout=StringIO())


if __name__ == "__main__":
    django.setup()
    mode, *arguments = sys.argv[1:]
    modes: dict[str, Callable[..., None]] = {"rate": rate, "handle": handle, "append": append, "clean": clean}
    modes[mode](*arguments)
