"""Keeping views out of `ATOMIC_REQUESTS`: what they do is the engine's, in transactions of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.db import connections, transaction

View = TypeVar("View", bound=Callable[..., object])


def never_atomic(view: View) -> View:
    """Mark a view as one that no database's `ATOMIC_REQUESTS` is for. Django's decorator alone is for the default's."""
    for alias in connections.settings:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view
