"""A wake-up message from another process to this one, through the backend of the settings (Redis)."""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from ...conf import config
from ...engine.wakeup import Wakeup, WakeUpMessage, make_wakeup
from . import child_process
from .findings import Finding, error, note, ok

CHILD_SECONDS = 30.0
"""Time for the other process to start, and for its message."""


def examine_wakeups(using: str) -> Iterator[Finding]:
    """Let another process send a message, and wait for it."""
    try:
        wakeup = make_wakeup(using)
    except ImproperlyConfigured as failure:
        yield error("wake-ups", str(failure), "Correct DURABLE_STREAMS['WAKEUP'].")
        return
    try:
        if not wakeup.carries_messages:
            yield note(
                "wake-ups",
                f"Processes do not wake each other's readers. They poll every {config().poll_interval:g} s.",
                "With more than one process, set WAKEUP to RedisWakeup.",
            )
        elif (problem := wakeup.find_problem()) is not None:
            yield error("wake-ups", f"Messages cannot be sent: {problem.text}", problem.remedy or _remedy())
        else:
            yield asyncio.run(_round_trip(wakeup, using))
    finally:
        wakeup.stop()


def _remedy() -> str:
    """Return what to do if the service does not answer. It names the setting, without a password."""
    options = {str(key).lower(): value for key, value in config().wakeup.items()}
    if options.get("url"):
        parts = urlsplit(str(options["url"]))
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
        return f"Start it, or correct the URL in DURABLE_STREAMS['WAKEUP'], which names {address}"
    if options.get("cache"):
        return f"Start it, or correct the cache {options['cache']!r} in CACHES, which DURABLE_STREAMS['WAKEUP'] names."
    return "Start it, or correct DURABLE_STREAMS['WAKEUP']."


class _Listener:
    """Waits for one message."""

    def __init__(self, stream_id: int) -> None:
        self.arrived = asyncio.Event()
        self.arrived_at = 0.0
        self._stream_id = stream_id

    def receive(self, stream_id: int, message: WakeUpMessage) -> None:
        """Take a message."""
        if stream_id == self._stream_id and not self.arrived.is_set():
            self.arrived_at = time.time()  # later, the other process has to end first
            self.arrived.set()

    def poll_all(self) -> None:
        """Do nothing: there is no stream."""


async def _round_trip(wakeup: Wakeup, using: str) -> Finding:
    stream_id = 2**61 + secrets.randbits(60)  # the id of no stream
    listener = _Listener(stream_id)
    subscriber = wakeup.subscriber(listener)
    if subscriber is None:
        return error("wake-ups", "The backend receives no messages.", "Correct DURABLE_STREAMS['WAKEUP'].")
    try:
        await subscriber.subscribe(stream_id)
        context = multiprocessing.get_context("spawn")
        sent_at = context.Value("d", 0.0)
        process = context.Process(target=child_process.send, args=(using, stream_id, sent_at), daemon=True)
        process.start()
        try:
            async with asyncio.timeout(CHILD_SECONDS):
                await listener.arrived.wait()
        except TimeoutError:
            return error(
                "wake-ups",
                "A message of another process did not arrive.",
                "Compare the settings of all processes: the Redis server, the cache's KEY_PREFIX, and SECRET_KEY.",
            )
        finally:
            await asyncio.to_thread(process.join, CHILD_SECONDS)
            process.kill()
        milliseconds = max(listener.arrived_at - sent_at.value, 0.0) * 1000
        return ok("wake-ups", f"A message of another process arrived after {milliseconds:.1f} ms.")
    finally:
        subscriber.close()
