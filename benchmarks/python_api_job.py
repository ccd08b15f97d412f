"""The process of `benchmarks.python_api`, with the settings of a target's project. Prints JSON: values by title."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable

import django

MESSAGE = {"text": "x" * 80}
ENCODED = json.dumps(MESSAGE, separators=(",", ":")).encode() + b"\n"
ROUND_SECONDS = 0.25
BATCH_MESSAGES = 100
AT_A_TIME = 64
ANSWERS, TOKENS_PER_SECOND = 200, 30
TOKEN = {"delta": "token "}


def alternate(works: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Do several works by turns in short rounds, and return how often each was done a second."""
    spent, done = dict.fromkeys(works, 0.0), dict.fromkeys(works, 0)
    for work in works.values():
        work()
    while min(spent.values()) < seconds:
        for title, work in works.items():
            began = time.perf_counter()
            while (now := time.perf_counter()) < began + ROUND_SECONDS:
                work()
                done[title] += 1
            spent[title] += now - began
    return {title: done[title] / spent[title] for title in works}


def synchronous(seconds: float) -> dict[str, float]:
    """Measure appends beside rows of a model of two columns."""
    from django.db import connection, models
    from django.utils import timezone

    from django_durable_streams.models import Stream

    class Row(models.Model):
        data = models.BinaryField()
        created_at = models.DateTimeField(default=timezone.now)

        class Meta:
            app_label = "demo"
            db_table = "bench_rows"

        def __str__(self) -> str:
            return f"{self.pk}"

    with connection.schema_editor() as editor:
        editor.create_model(Row)
    stream = Stream.objects.create(path="bench/append", content_type="application/json")
    many = Stream.objects.create(path="bench/append-many", content_type="application/json")
    rates = alternate(
        {
            "create": lambda: Row.objects.create(data=ENCODED),
            "append": lambda: stream.append(MESSAGE),
            "bulk_create": lambda: Row.objects.bulk_create(Row(data=ENCODED) for _ in range(BATCH_MESSAGES)),
            "append_many": lambda: many.append_many([MESSAGE] * BATCH_MESSAGES),
        },
        seconds,
    )
    return {
        "append, a second": rates["append"],
        "create of the ORM, a second": rates["create"],
        "append / create, rate": rates["append"] / rates["create"],
        f"append_many of {BATCH_MESSAGES} / bulk_create of {BATCH_MESSAGES}, rate": rates["append_many"]
        / rates["bulk_create"],
    }


async def asynchronous(seconds: float) -> float:
    """Return how many appends a second 64 tasks make."""
    from django_durable_streams.models import Stream

    stream = await Stream.objects.acreate(path="bench/aappend", content_type="application/json")
    until = time.perf_counter() + seconds
    done = 0

    async def repeat() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await stream.aappend(MESSAGE)
            done += 1

    await asyncio.gather(*(repeat() for _ in range(AT_A_TIME)))
    return done / seconds


async def answers(seconds: float) -> float:
    """Return the share of a core that writers of 200 answers take."""
    from django_durable_streams.models import Stream

    loop = asyncio.get_running_loop()

    async def write(number: int) -> None:
        stream = await Stream.objects.acreate(path=f"bench/answer/{number}", content_type="application/json")
        async with stream.awriter() as writer:
            due = loop.time() + number / ANSWERS / TOKENS_PER_SECOND
            until = due + seconds + 2
            while due < until:
                await asyncio.sleep(due - loop.time())
                await writer.write(TOKEN)
                due += 1 / TOKENS_PER_SECOND

    writers = [asyncio.create_task(write(number)) for number in range(ANSWERS)]
    await asyncio.sleep(1.0)  # all of them have begun
    began, used = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    share = (time.process_time() - used) / (time.perf_counter() - began)
    await asyncio.gather(*writers)
    return share - await _share_of_sleeping(seconds / 2)


async def _share_of_sleeping(seconds: float) -> float:
    """Return the share of a core that the timers of the answers take without a writer."""
    loop = asyncio.get_running_loop()

    async def sleep(number: int) -> None:
        due = loop.time() + number / ANSWERS / TOKENS_PER_SECOND
        until = due + seconds
        while due < until:
            await asyncio.sleep(due - loop.time())
            due += 1 / TOKENS_PER_SECOND

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(sleep(number) for number in range(ANSWERS)))
    return (time.process_time() - used) / (time.perf_counter() - began)


def main(seconds: float) -> None:
    django.setup()
    values = synchronous(seconds)
    rate = asyncio.run(asynchronous(seconds))
    values[f"aappend, {AT_A_TIME} at a time, a second"] = rate
    values[f"aappend, {AT_A_TIME} at a time / append, rate"] = rate / values["append, a second"]
    title = f"awriter, {ANSWERS} answers at {TOKENS_PER_SECOND} tokens/s, share of a core"
    values[title] = asyncio.run(answers(seconds))
    print(json.dumps(values))


if __name__ == "__main__":
    main(float(sys.argv[1]))
