"""Each test begins without consumers."""

import pytest


@pytest.fixture(autouse=True)
def only_own_consumers(no_consumers: None) -> None: ...
