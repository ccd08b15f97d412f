"""A registry of consumers that is empty at the beginning of each test."""

from collections.abc import Iterator

import pytest

from django_durable_streams.subscriptions.consumers import declarations


@pytest.fixture(autouse=True)
def no_consumers() -> Iterator[None]:
    consumers, duplicates = dict(declarations._consumers), list(declarations._duplicates)
    declarations._consumers.clear()
    declarations._duplicates.clear()
    yield
    declarations._consumers.clear()
    declarations._consumers.update(consumers)
    declarations._duplicates[:] = duplicates
