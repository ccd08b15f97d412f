"""The other process of `wakeups`. A new Python imports it before Django is set up."""

from __future__ import annotations

from typing import Any


def send(using: str, stream_id: int, sent_at: Any) -> None:
    """Send one wake-up message.

    Args:
        using: alias of the database.
        stream_id: the id that the message names.
        sent_at: gets the time of the sending, in Unix seconds.
    """
    import time

    import django

    django.setup()
    from django_durable_streams.engine.wakeup import make_wakeup
    from django_durable_streams.store.operations import Commit

    wakeup = make_wakeup(using)
    try:
        # The first message opens the connection, which those of a server have open already.
        for number in (stream_id ^ 1, stream_id):
            commit = Commit(number, "doctor", "text/plain", 0, 1, False, appends=[b"x"], ends=[1])
            sent_at.value = time.time()
            wakeup.publish_now([commit])
    finally:
        wakeup.stop()
