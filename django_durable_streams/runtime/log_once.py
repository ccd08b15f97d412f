"""Log messages that many events cause: one in a period is enough. Knows neither the messages nor their loggers."""

from __future__ import annotations

import time
from collections.abc import Hashable
from threading import Lock


class LogOnce:
    """Decides whether an event is logged. Safe to use from any thread.

    Args:
        seconds: the length of the period after a logged event in which events with the same key are not logged.
        extends: whether each event starts the period again. Then an event is logged again only after it has stayed
            away for the whole period.
    """

    def __init__(self, seconds: float, *, extends: bool = False) -> None:
        self._seconds = seconds
        self._extends = extends
        self._silent_until: dict[Hashable, float] = {}
        self._lock = Lock()

    def is_due(self, key: Hashable = None) -> bool:
        """Return whether to log an event that happens now. True starts the period.

        Args:
            key: the kind of event. There must be few, because each is remembered.
        """
        now = time.monotonic()
        with self._lock:
            silent_until = self._silent_until.get(key)
            is_due = silent_until is None or now > silent_until
            if is_due or self._extends:
                self._silent_until[key] = now + self._seconds
        return is_due
