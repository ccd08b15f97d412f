"""Log messages about an outage: one when a service stops to answer or refuses, and one when it answers again.

Several clients of the service may notice both. Knows no service.
"""

from __future__ import annotations

import logging
from threading import Lock


class OutageLog:
    """The clients that get no answer from a service. Safe to use from any thread.

    Args:
        logger: the logger of both messages.
        failed: the message when the first client gets no answer, with a `%s` for the reason.
        recovered: the message when the last client gets answers again.
    """

    def __init__(self, logger: logging.Logger, failed: str, recovered: str) -> None:
        self._logger = logger
        self._failed = failed
        self._recovered = recovered
        self._without_answer: set[object] = set()
        self._lock = Lock()

    def report_failure(self, client: object, reason: object) -> None:
        """Record that a client gets no answer. The reason is a sentence without its point."""
        with self._lock:
            is_first = not self._without_answer
            self._without_answer.add(client)
        if is_first:
            self._logger.warning(self._failed, reason)

    def report_success(self, client: object) -> None:
        """Record that a client gets answers."""
        if client not in self._without_answer:
            return
        with self._lock:
            self._without_answer.discard(client)
            is_last = not self._without_answer
        if is_last:
            self._logger.warning(self._recovered)
