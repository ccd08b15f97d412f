"""Steps that follow a commit: wake-ups of readers and other processes, signals, counts for housekeeping.

A failing step never changes the response to a request, because the commit is done. The error goes to the log. It is
logged when the step begins to fail, and again only after the step has worked. A step that fails after one commit, such
as a misconfigured wake-up backend, fails after all commits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec

from .results import contained

logger = logging.getLogger(__name__)

P = ParamSpec("P")

_failing_purposes: set[str] = set()


def follow_up(purpose: str, step: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run a step that follows a commit. Raises nothing but an exception by which a signal ends the process.

    Args:
        purpose: one sentence for the log that says the effect of the failure. It also identifies the step.
        step: the function to call with the other arguments.
    """
    try:
        step(*args, **kwargs)
    except BaseException as error:
        _log(purpose, error)
    else:
        if _failing_purposes:
            _failing_purposes.discard(purpose)


def _log(purpose: str, error: BaseException) -> None:
    """Log that a step failed, unless it failed before. Raises only an exception by which a signal ends the process."""
    try:
        with contained:
            raise error
    except Exception as failure:
        if purpose not in _failing_purposes:
            _failing_purposes.add(purpose)
            logger.error(
                "A commit succeeded, but a step after it failed. %s This is logged again only after the step has "
                "worked. Read the error below, and run `manage.py check`.",
                purpose,
                exc_info=failure,
            )
