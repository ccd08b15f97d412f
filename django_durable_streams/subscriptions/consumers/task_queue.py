"""Enqueues tasks for consumers that have something to handle: one for each wake (see `task_wakes`).

The delivery of a process asks for it after each look at the database. A thread of its own enqueues, because a backend
of the task framework may use the database, or run the task at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from django.db import connections

from ...protocol.errors import DurableStreamsError
from ...runtime.log_once import LogOnce
from ...runtime.queue_thread import QueueThread
from . import task_run
from .declarations import Consumer, registered
from .subscribing import subscribe
from .task_framework import backend_problem
from .task_wakes import TaskWake, begin_wakes, run_by_tasks

logger = logging.getLogger(__name__)

WARNING_SECONDS = 60.0
STOP_SECONDS = 2.0
"""How long the end of the process waits for the thread. A task that was not enqueued counts as lost."""


class TaskQueue:
    """The tasks of the consumers of one database, for one process.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._consumers: dict[int, Consumer] = {}
        self._unsubscribed = run_by_tasks(registered(), using)
        self._thread: QueueThread[TaskWake] = QueueThread("durable-streams-tasks", self._enqueue)
        self._failures = LogOnce(WARNING_SECONDS)

    @property
    def is_needed(self) -> bool:
        """Whether tasks run a consumer."""
        return bool(self._unsubscribed or self._consumers)

    async def fill(self, call: Callable[[Callable[[], list[TaskWake]]], Awaitable[list[TaskWake]]]) -> None:
        """Enqueue what is due now. Raises nothing, because its caller has other wakes to deliver.

        Args:
            call: calls a function in the thread of the subscriptions, and returns its value.
        """
        if not self.is_needed:
            return
        try:
            for wake in await call(self.begin):
                self._thread.put(wake)
        except DurableStreamsError as error:
            logger.debug("No task of a consumer could begin: %s", error)
        except Exception:  # the delivery must outlive every bug
            if self._failures.is_due():
                logger.exception("No task of a consumer could begin. This is tried again.")

    def begin(self) -> list[TaskWake]:
        """Begin wakes, and return them. In the thread of the subscriptions.

        Raises:
            django.db.Error: the database does not answer, or is busy.
        """
        while self._unsubscribed:
            consumer = self._unsubscribed[-1]
            self._consumers[subscribe(consumer, self._using)] = consumer
            self._unsubscribed.pop()
        return begin_wakes(self._consumers, self._using)

    def stop(self) -> None:
        """End the thread. A task that it runs itself ends after its present batch."""
        task_run.stop()
        self._thread.stop(STOP_SECONDS)

    def _enqueue(self, wake: TaskWake) -> None:
        consumer = self._consumers[wake.subscription_id]
        try:
            from .tasks import run_consumer

            task = run_consumer.using(backend=consumer.tasks_alias, queue_name=consumer.task_queue)
            task.enqueue(consumer.name, wake.subscription_id, wake.id)
            _commit()
        except Exception:  # the backend is the project's
            if self._failures.is_due():
                logger.exception(
                    "The consumer %s has messages, but no task could be enqueued. This is tried again. %s",
                    consumer.name,
                    backend_problem(consumer.tasks_alias, consumer.task_queue),
                )
        finally:
            connections.close_all()


def _commit() -> None:
    """Commit what a backend has written, also with `"AUTOCOMMIT": False` in DATABASES."""
    for connection in connections.all(initialized_only=True):
        if not connection.get_autocommit():
            connection.commit()
