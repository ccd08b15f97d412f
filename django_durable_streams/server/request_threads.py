"""Gives back the thread of a request while it waits. Django keeps one for each request under ASGI."""

from __future__ import annotations

from asgiref.sync import SyncToAsync
from django.db import connections


def release_thread() -> None:
    """Give back the current request's thread and its database connections.

    Under ASGI, Django gives each request a thread for synchronous code, until the request ends. A waiting reader must
    not keep one. Synchronous code that runs later, such as middleware on the way back, gets a new thread.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    executor = SyncToAsync.context_to_thread_executor.pop(context, None) if context is not None else None
    if executor is not None:
        # Not awaited: behind synchronous middleware, the thread itself waits for this request.
        executor.submit(connections.close_all)
        executor.shutdown(wait=False)
