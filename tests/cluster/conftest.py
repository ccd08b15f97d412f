"""The services that the tests of this folder share, and the databases that they run on."""

import asyncio
from collections.abc import Coroutine

import pytest

from tests.cluster.cluster import STRESS
from tests.services import Database, MariaDB, PostgreSQL, Redis, shared

LONGEST_SECONDS = 3600
"""How long one test of `make stress` may take. Its own deadlines come first, and say which part was late."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/cluster/" in item.path.as_posix():
            item.add_marker(pytest.mark.cluster)
            if STRESS:
                item.add_marker(pytest.mark.timeout(LONGEST_SECONDS))


@pytest.fixture(params=[PostgreSQL, MariaDB], ids=["postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    """A database server that no test may break."""
    kind: type[Database] = request.param
    return shared(kind)


@pytest.fixture
def redis() -> Redis:
    """A Redis that no test may break."""
    return shared(Redis)


def run(scenario: Coroutine[object, object, None], seconds: float) -> None:
    """Run a scenario, which fails if it takes longer."""
    asyncio.run(asyncio.wait_for(scenario, seconds))
