"""Servers for all tests that leave them as they found them."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.hostile.entry_points import ENTRY_POINTS, EntryPoint, Serving


@pytest.fixture(scope="package", params=ENTRY_POINTS)
def entry_point(request: pytest.FixtureRequest) -> Iterator[EntryPoint]:
    """Each entry point on each server."""
    with EntryPoint(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Servers by entry point and settings, each started once for the tests of a module."""
    with ExitStack() as stack:

        @functools.cache
        def server(name: str, **streams: Any) -> EntryPoint:
            return stack.enter_context(EntryPoint(name, **streams))

        yield server
