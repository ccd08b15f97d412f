"""Asynchronous access to the store, for many requests at once.

Threads with a database connection each (lanes) do the work of all requests that wait, and the hub wakes readers.
Nothing here knows a request.
"""

from .engine import Engine, engine_for

__all__ = ["Engine", "engine_for"]
