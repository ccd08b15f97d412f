"""The task that runs a consumer. The processes of the task framework import it by its name.

It is imported only where a task framework is installed and a consumer asks for tasks. Its own backend and queue only
have to exist: those of the consumer are named whenever it is enqueued.
"""

from __future__ import annotations

from .declarations import registered
from .task_framework import MISSING, framework
from .task_run import run

_framework = framework()
if _framework is None:
    raise ImportError(MISSING)

_first = next((consumer for consumer in registered() if consumer.tasks_alias), None)
_place = {} if _first is None else {"backend": _first.tasks_alias, "queue_name": _first.task_queue}


@_framework.task(**_place)  # type: ignore[untyped-decorator]
def run_consumer(name: str, subscription_id: int, wake_id: str) -> int:
    """Handle what is pending for a consumer. Return the number of handled messages."""
    return run(name, subscription_id, wake_id)
