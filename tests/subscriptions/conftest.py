"""A clock that a test moves."""

import pytest

from django_durable_streams import clock
from tests.subscriptions.steps import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the package."""
    moving = Clock()
    monkeypatch.setattr(clock, "now", moving)
    return moving
