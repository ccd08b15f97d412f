"""Run in a project: `run KIND` runs a worker whose handler asks the process to end, and then hangs. `look` looks later.

The handler hangs in its own thread, in an event loop, or in a thread for which Python waits at its end. `look` prints
what was committed.
"""

import asyncio
import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django


def run(kind: str) -> None:
    from django.core.management import call_command

    from django_durable_streams.consumers import Batch, consumer
    from django_durable_streams.models import Stream

    def begin() -> None:
        Stream.objects.create(path="out", content_type="application/json").append(1)
        os.kill(os.getpid(), signal.SIGTERM)

    def hang(batch: Batch) -> Any:
        begin()
        if kind == "pool":
            ThreadPoolExecutor(1).submit(threading.Event().wait).result()
        threading.Event().wait()

    async def hang_too(batch: Batch) -> None:
        from asgiref.sync import sync_to_async

        await sync_to_async(begin)()
        await asyncio.Event().wait()

    consumer("in", name="hanging", start="beginning", lease=1.0)(hang_too if kind == "loop" else hang)
    Stream.objects.create(path="in", content_type="application/json").append(1)
    call_command("streams_worker", no_delivery=True)


def look() -> None:
    from django_durable_streams.models import Stream, SubscriptionLink

    effects = list(Stream.objects.filter(path="out").values_list("path", flat=True))
    print(json.dumps({"effects": effects, "position": SubscriptionLink.objects.get().acked_position}))


if __name__ == "__main__":
    django.setup()
    if sys.argv[1] == "run":
        run(sys.argv[2])
    else:
        look()
