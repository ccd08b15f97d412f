"""Responses of Django's views that are never sent. Knows no response.

A client may leave while middleware works on the response to its request. Django then cancels the request's task, and
drops the response without closing it. The cancellation and its frames refer to each other and to the response, so what
the response holds would stay until the garbage collector comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def call_if_unsent(function: Callable[[], object]) -> None:
    """Call a function if the task that makes a response here is cancelled. It may be called after the response, too."""
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(lambda done: function() if done.cancelled() else None)
