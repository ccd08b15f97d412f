"""The task that writes an answer. The processes of the task framework import it by its name."""

from __future__ import annotations

import uuid

from ...conf import config
from ...runtime import background
from ...subscriptions.consumers.task_framework import MISSING, framework
from .models import database
from .service import answers_of

_framework = framework()
if _framework is None:
    raise ImportError(MISSING)


@_framework.task(backend=config().ai_task_backend)  # type: ignore[untyped-decorator]
def write_answer(run_id: str) -> bool:
    """Write the answer of a run to its end, unless another process has taken it. Return whether this one did."""
    return background.run(answers_of(database()).take(uuid.UUID(run_id)))
