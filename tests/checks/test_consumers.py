"""Checks of consumers."""

from typing import Any

import pytest

from django_durable_streams.checks.consumers import check_dead_letters, check_names, check_paths
from django_durable_streams.consumers import Batch, consumer

pytestmark = pytest.mark.usefixtures("no_consumers")


def first(batch: Batch) -> None: ...


def second(batch: Batch) -> None: ...


def ids(check: Any) -> list[str]:
    return [message.id for message in check(None)]


def test_a_name_that_is_registered_twice_is_an_error() -> None:
    consumer("a/*", name="one")(first)
    consumer("a/*", name="one")(first)  # its module was imported under two names
    assert ids(check_names) == []
    consumer("b/*", name="one")(second)
    assert ids(check_names) == ["durable_streams.E009"]
    assert "tests.checks.test_consumers.second" in str(check_names(None)[0].hint)


@pytest.mark.parametrize("pattern", ["", "a/b*", "/a", "a//b", "__ds/x", "a/../b"])
def test_a_pattern_that_can_never_match_is_an_error(pattern: str) -> None:
    consumer(pattern, name="one")(first)
    assert ids(check_paths) == ["durable_streams.E010"]


def test_a_path_for_dead_letters_that_no_stream_can_have_is_an_error() -> None:
    consumer("a/*", name="one", dead_letters="a//b")(first)
    assert ids(check_paths) == ["durable_streams.E010"]


def test_dead_letters_that_come_back_are_a_warning() -> None:
    consumer("dead-letters/*", name="one")(first)
    assert ids(check_dead_letters) == []
    consumer("failed/**", name="two", dead_letters="dead-letters/two")(first)
    assert ids(check_dead_letters) == []
    consumer("dead-letters/**", name="three", dead_letters="failed/three")(second)
    assert ids(check_dead_letters) == ["durable_streams.W027"] * 3
    consumer("a//b", name="wrong")(second)
    assert ids(check_dead_letters) == ["durable_streams.W027"] * 3


def test_good_consumers_are_no_error() -> None:
    consumer("**", name="one")(first)
    consumer("a/*/**", name="two", dead_letters="letters")(second)
    assert ids(check_names) + ids(check_paths) == []
