"""Asynchronous access to the store, for many requests at once.

Threads with a database connection each do the work of all waiting requests together, and hubs wake live readers. Knows
neither requests nor responses.
"""

from .engine import Engine, engine_for

__all__ = ["Engine", "engine_for"]
