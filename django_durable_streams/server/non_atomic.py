"""Keeps views out of `ATOMIC_REQUESTS`: the engine works in transactions of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.db import connections, transaction

View = TypeVar("View", bound=Callable[..., object])


def never_atomic(view: View) -> View:
    """Exempt a view from the `ATOMIC_REQUESTS` of every database. Django's decorator alone exempts it from one."""
    for alias in connections.settings:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view
