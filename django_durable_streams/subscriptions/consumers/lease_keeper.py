"""Extends the lease of a worker while a handler runs longer than a part of it, from a thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from django.db import Error, connections

from . import cursors
from .cursors import Claim
from .isolation import forget_connections, prepare_connection

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 4

STOP_SECONDS = 1.0
"""How long the end of a worker waits for a renewal, which takes milliseconds. Its database may be silent."""


class LeaseKeeper:
    """Renews the lease of the claim that one worker works with.

    Args:
        using: alias of the database.
        lease: the shortest lease of the worker's consumers, in seconds.
        renew: renews the lease of a claim, in the thread.
    """

    def __init__(self, using: str, lease: float, renew: Callable[[Claim, str], object] = cursors.renew) -> None:
        self._using = using
        self._renew = renew
        self._interval = lease / RENEWALS_PER_LEASE
        self._working: tuple[Claim, float] | None = None
        self._stopping = Event()
        # On SQLite a handler's transaction has the only write lock from its beginning, so nobody can take its stream.
        is_needed = connections[using].vendor != "sqlite"
        self._thread = Thread(target=self._run, name="durable-streams-leases", daemon=True) if is_needed else None

    def start(self) -> None:
        """Start the thread."""
        if self._thread is not None:
            self._thread.start()

    def stop(self) -> None:
        """End the thread, or leave it where a renewal hangs."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                logger.warning("The thread %s does not end. The end of the worker does not wait.", self._thread.name)

    @contextmanager
    def hold(self, held: Claim) -> Iterator[None]:
        """Renew the lease of a claim during the block."""
        self._working = held, time.monotonic()
        try:
            yield
        finally:
            self._working = None

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            working = self._working
            if working is None or time.monotonic() - working[1] < self._interval:
                continue
            try:
                prepare_connection(self._using)
                self._renew(working[0], self._using)
            except Error as error:
                logger.debug("A lease was not extended. This is tried again: %s", error)
            except Exception:  # the thread must outlive every bug
                logger.exception("A lease was not extended. This is tried again.")
            finally:
                forget_connections()
