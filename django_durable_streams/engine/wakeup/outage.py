"""Saying once that something does not answer, and once that it does again, whoever of several has found out."""

from __future__ import annotations

import logging
from threading import Lock


class OutageLog:
    """Those for whom a service is silent.

    Args:
        logger: where to say it.
        fallen: message where the first one finds no answer, with a place for the reason.
        recovered: message where the last one has an answer again.
    """

    def __init__(self, logger: logging.Logger, fallen: str, recovered: str) -> None:
        self._logger = logger
        self._fallen = fallen
        self._recovered = recovered
        self._lost: set[object] = set()
        self._lock = Lock()

    def lost(self, who: object, reason: object) -> None:
        """Take note that somebody gets no answer."""
        with self._lock:
            is_first = not self._lost
            self._lost.add(who)
        if is_first:
            self._logger.warning(self._fallen, reason)

    def found(self, who: object) -> None:
        """Take note that somebody gets answers."""
        if who not in self._lost:
            return
        with self._lock:
            self._lost.discard(who)
            is_last = not self._lost
        if is_last:
            self._logger.warning(self._recovered)
