"""One server for each configuration, for all tests that leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.entry_points.probed import CONFIGURATIONS, ProbedServer


@pytest.fixture(scope="package", params=CONFIGURATIONS, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[ProbedServer]:
    """The example project, served by each program and through each entry point."""
    with ProbedServer(request.param.kind, entry_point=request.param.entry_point) as server:
        yield server
