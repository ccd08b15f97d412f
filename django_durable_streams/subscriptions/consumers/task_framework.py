"""The task framework of the project: Django's own from version 6.0 on, or its backport, the package `django-tasks`.

Only the names that both have are used. Nothing is imported before a consumer asks for tasks.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

NAMES = ("django.tasks", "django_tasks")
"""The modules, the preferred one first."""

MISSING = "Django has a task framework from version 6.0 on. For earlier versions, install the package django-tasks."


@lru_cache(maxsize=1)
def framework() -> Any:
    """Return the module of the task framework, or None if there is none."""
    for name in NAMES:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # it is there, and something that it needs is not
                raise
    return None


def backend_problem(alias: str, queue: str) -> str:
    """Return what is wrong with a backend or one of its queues, or nothing."""
    module = framework()
    if module is None:
        return MISSING
    try:
        backend = module.task_backends[alias]
    except Exception as error:  # an unknown alias, or a backend of the project that cannot be made
        return f"The setting TASKS has no usable backend {alias!r}: {error}"
    queues = getattr(backend, "queues", None)
    if queues and queue not in queues:
        return f"The backend {alias!r} of the setting TASKS has no queue {queue!r}."
    return ""
