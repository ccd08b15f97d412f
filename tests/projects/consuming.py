"""Run in a project: a worker handles messages, and another connection looks at what it has committed.

Prints the numbers that the handler has appended to another stream, whether a link is still pending or held, and the
alias of the database of the links.
"""

import json
import time

import django

NUMBERS = list(range(10))
SECONDS = 20


def main() -> None:
    from django.db import connections

    from django_durable_streams.consumers import Batch, consumer
    from django_durable_streams.models import Stream, SubscriptionLink
    from django_durable_streams.subscriptions.consumers.worker import Worker

    @consumer("in/*", name="copy", start="beginning", batch_size=3, lease=1.0)
    def copy(batch: Batch) -> None:
        out, _ = Stream.objects.using(batch.using).ensure("out", content_type="application/json")
        out.append_many(batch.messages)

    using = copy.alias
    connections[using].set_autocommit(True)
    streams, links = Stream.objects.using(using), SubscriptionLink.objects.using(using)
    stream = streams.create(path="in/1", content_type="application/json")
    stream.append_many(NUMBERS[:5])
    connections.close_all()
    worker = Worker([copy], using)
    worker.start()
    until = time.monotonic() + SECONDS
    appended = 5
    while time.monotonic() < until:
        time.sleep(0.05)
        connections[using].set_autocommit(True)
        done = streams.filter(path="out").exists() and len(list(streams.get(path="out").read())) >= appended
        if done and appended < len(NUMBERS):
            stream.append_many(NUMBERS[5:])
            appended = len(NUMBERS)
        elif done and not links.filter(is_pending=True).exists():
            break
        connections.close_all()
    worker.stop()
    assert worker.join(SECONDS)
    connections[using].set_autocommit(True)
    print(
        json.dumps(
            {
                "numbers": list(streams.get(path="out").read()),
                "open": links.filter(is_pending=True).count() + links.exclude(holder="").count(),
                "alias": using,
            }
        )
    )


if __name__ == "__main__":
    django.setup()
    main()
