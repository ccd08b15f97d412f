"""Functions that run when an engine starts or the engines stop, for threads and caches that they do not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_functions: list[Callable[[], None]] = []
_start_functions: list[Callable[[Any], None]] = []
_before_stop_functions: list[Callable[[], None]] = []


def call_at_start(function: Callable[[Any], None]) -> None:
    """Register a function that is called with each new engine. It must not block."""
    _start_functions.append(function)


def run_start_functions(engine: object) -> None:
    """Call the functions that were registered for the start of an engine."""
    for function in _start_functions:
        function(engine)


def call_before_stop(function: Callable[[], None]) -> None:
    """Register a function that is called before the engines of the process stop, while they still work."""
    _before_stop_functions.append(function)


def run_before_stop_functions() -> None:
    """Call the functions that were registered for the time before the end."""
    for function in _before_stop_functions:
        function()


def call_at_stop(function: Callable[[], None]) -> Callable[[], None]:
    """Register a function that is called each time the engines of the process stop. Usable as a decorator."""
    _functions.append(function)
    return function


def run_stop_functions() -> None:
    """Call the registered functions, in the order of their registration."""
    for function in _functions:
        function()
