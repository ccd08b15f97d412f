"""The thread that Django gives each request under ASGI, and how to do without it while a request waits."""

from __future__ import annotations

from asgiref.sync import SyncToAsync
from django.db import connections


def release_thread() -> None:
    """Give back the thread, and its database connections, that Django and its middleware have used so far.

    Each request under ASGI has a thread of its own for synchronous code, until it ends; a waiting reader must not keep
    one. Synchronous code that comes later, such as middleware on the way back, gets a new one.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    executor = SyncToAsync.context_to_thread_executor.pop(context, None) if context is not None else None
    if executor is not None:
        # Not awaited: behind middleware that is synchronous only, the thread itself waits for this request.
        executor.submit(connections.close_all)
        executor.shutdown(wait=False)
