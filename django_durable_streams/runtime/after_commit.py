"""What follows a commit for the sake of others: readers, other processes, receivers of signals, housekeeping.

The commit is done, and whoever asked for it is told so, whatever comes of this: each step is made here, in one place,
and its error goes to the log. It is logged when the step begins to fail, and not again until it has worked: what fails
at one commit, such as a wake-up backend that is misconfigured, fails at all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec

logger = logging.getLogger(__name__)

P = ParamSpec("P")

_failing: set[str] = set()


def follow_up(purpose: str, step: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Make a step that follows a commit. Never raises an `Exception`.

    Args:
        purpose: what the step is for, and what becomes of that without it; a sentence for the log.
        step: is called with the other arguments.
    """
    try:
        step(*args, **kwargs)
    except Exception:
        if purpose not in _failing:
            _failing.add(purpose)
            logger.exception(
                "A commit is done, but what follows it has failed. %s This is not logged again until it has worked. "
                "Look at the error below, and run `manage.py check`.",
                purpose,
            )
    else:
        if _failing:
            _failing.discard(purpose)
