"""A consumer that adds numbers in a table, and the processes around it, each with the settings of its environment.

python -m tests.cluster.consumer_job prepare | work | append COUNT | replay | wait SUM SECONDS

`work` runs until it is killed. `append` appends the numbers from 1 to COUNT to a few streams. `replay` takes all sums
back and has all numbers added again. `wait` waits until the table has a sum, and prints the sum and the number of
messages that came out of order.
"""

import sys
import time
from collections.abc import Callable
from io import StringIO

import django

STREAMS = 6
LEASE = 1.0


def prepare() -> None:
    execute("CREATE TABLE sums (stream VARCHAR(64) PRIMARY KEY, total BIGINT, last_number BIGINT, disorder BIGINT)")
    for number in range(STREAMS):
        execute("INSERT INTO sums VALUES (%s, 0, 0, 0)", f"numbers/{number}")


def execute(sql: str, *parameters: int | str) -> list[tuple[int, ...]]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []


def declare() -> None:
    from django_durable_streams.consumers import Batch, consumer

    @consumer("numbers/*", name="sum", batch_size=7, lease=LEASE, start="beginning")
    def add(batch: Batch) -> None:
        for number in batch.messages:
            execute(
                "UPDATE sums SET disorder = disorder + CASE WHEN last_number < %s THEN 0 ELSE 1 END, "
                "total = total + %s, last_number = %s WHERE stream = %s",
                *(number, number, number, batch.stream),
            )

    @add.reset
    def forget(streams: list[str]) -> None:
        for stream in streams:
            execute("UPDATE sums SET total = 0, last_number = 0 WHERE stream = %s", stream)


def work() -> None:
    from django.core.management import call_command

    declare()
    call_command("streams_worker", no_delivery=True, verbosity=0)


def replay() -> None:
    from django.core.management import call_command

    declare()
    call_command("streams", "replay", "sum", "--from", "-1", "--no-input", "--no-wait", stdout=StringIO())


def append(count: int) -> None:
    from django_durable_streams.models import Stream

    for number in range(1, count + 1):
        stream, _ = Stream.objects.ensure(f"numbers/{number % STREAMS}", content_type="application/json")
        stream.append(number)


def wait(expected: int, seconds: int) -> None:
    until = time.monotonic() + seconds
    while True:
        ((total, disorder),) = execute("SELECT SUM(total), SUM(disorder) FROM sums")
        if total >= expected or time.monotonic() > until:
            print(total, disorder)
            return
        time.sleep(0.05)


if __name__ == "__main__":
    django.setup()
    mode, *numbers = sys.argv[1:]
    modes: dict[str, Callable[..., None]] = {
        "prepare": prepare,
        "work": work,
        "append": append,
        "replay": replay,
        "wait": wait,
    }
    modes[mode](*map(int, numbers))
