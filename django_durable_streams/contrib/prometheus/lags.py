"""The lag of subscriptions and consumers, as metrics. They come from the database, so only the view shows them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from threading import Lock

from django.db import Error, router
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ...models import Stream
from ...runtime.log_once import LogOnce
from ...subscriptions.lag import Lag, lags
from .collector import to_metric
from .families import PREFIX, Family, Kind

logger = logging.getLogger(__name__)

LABELS = ("subscription", "kind")


class LagCollector(Collector):
    """Collects the lags, and queries them at most once in a time.

    Args:
        seconds: how long the result of a query is shown.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lags: list[Lag] = []
        self._expires_at = 0.0
        self._lock = Lock()
        self._failures = LogOnce(60.0)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        return map(to_metric, families(self._present()))

    def describe(self) -> Iterable[Metric]:
        """Return no names, because the database must not be queried while the project starts."""
        return []

    def _present(self) -> list[Lag]:
        """Return the lags. While another scrape waits for the database, this one does not: it would wait as long."""
        if not self._lock.acquire(blocking=False):
            return self._lags if time.monotonic() < self._expires_at else []
        try:
            now = time.monotonic()
            if now >= self._expires_at:
                self._expires_at = now + self._seconds
                try:
                    self._lags = lags(router.db_for_write(Stream))
                except Error as error:  # the other metrics are needed most while the database fails
                    self._lags = []
                    if self._failures.is_due():
                        logger.warning("The lags of subscriptions cannot be queried: %s", error)
            return self._lags
        finally:
            self._lock.release()


def families(present: Iterable[Lag]) -> list[Family]:
    """Return the metrics of lags."""
    rows = list(present)
    return [
        Family(
            f"{PREFIX}subscription_pending_streams",
            Kind.GAUGE,
            "Streams with data after the cursor of a subscription or consumer.",
            LABELS,
            [((lag.name, lag.kind), lag.streams) for lag in rows],
        ),
        Family(
            f"{PREFIX}subscription_pending_bytes",
            Kind.GAUGE,
            "Bytes after the cursors of a subscription or consumer.",
            LABELS,
            [((lag.name, lag.kind), lag.bytes) for lag in rows],
        ),
    ]
