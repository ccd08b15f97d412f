"""These tests start servers and proxies: they run with those of several workers."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/deployment/" in item.path.as_posix():
            item.add_marker(pytest.mark.cluster)
