"""Hands a run to Django's task framework. Nothing of it is imported before a run needs it."""

from __future__ import annotations

import logging

from django.db import connections
from django.utils.module_loading import import_string

from ...conf import config
from ...subscriptions.consumers.task_framework import backend_problem

TASK = "django_durable_streams.contrib.ai.tasks.write_answer"

logger = logging.getLogger(__name__)


def enqueue(run_id: str) -> None:
    """Enqueue a task that writes the answer of a run. Raises nothing: a run that is not taken ends as failed."""
    alias = config().ai_task_backend
    try:
        write_answer = import_string(TASK)  # as the processes of the framework do
        write_answer.using(backend=alias).enqueue(run_id)
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block and not connection.get_autocommit():
                connection.commit()
    except Exception:  # the backend is the project's
        logger.exception("The task of an answer could not be enqueued. %s", backend_problem(alias, "default"))
