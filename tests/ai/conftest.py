"""What the tests of AI answers share."""

from collections.abc import Iterator

import pytest

from tests.ai.provider import Provider, provider


@pytest.fixture
def server() -> Iterator[Provider]:
    """A server that speaks the HTTP of the providers of models."""
    with provider() as server:
        yield server
