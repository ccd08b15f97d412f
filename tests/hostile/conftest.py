"""Servers for all tests that leave them as they found them."""

from collections.abc import Iterator

import pytest

from tests.hostile.entry_points import ENTRY_POINTS, EntryPoint


@pytest.fixture(scope="package", params=ENTRY_POINTS)
def entry_point(request: pytest.FixtureRequest) -> Iterator[EntryPoint]:
    """Each entry point on each server."""
    with EntryPoint(request.param) as server:
        yield server
