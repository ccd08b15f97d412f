"""Functions that run when the engines of the process stop, for threads and caches that the engines do not know."""

from __future__ import annotations

from collections.abc import Callable

_functions: list[Callable[[], None]] = []


def call_at_stop(function: Callable[[], None]) -> Callable[[], None]:
    """Register a function that is called each time the engines of the process stop. Usable as a decorator."""
    _functions.append(function)
    return function


def run_stop_functions() -> None:
    """Call the registered functions, in the order of their registration."""
    for function in _functions:
        function()
