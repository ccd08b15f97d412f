"""An engine changes the garbage collector of its process only as the settings say."""

import gc
from collections.abc import Iterator

import pytest

from django_durable_streams.engine import engine_for
from tests.overriding import override_streams


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    threshold = gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(701, 11, 12)
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_an_engine_only_raises_the_threshold(engines: None) -> None:
    engine_for()
    assert gc.get_threshold() == (10_000, 11, 12)
    assert gc.get_freeze_count() == 0


def test_a_threshold_of_zero_changes_nothing(engines: None) -> None:
    with override_streams(GC_THRESHOLD=0):
        engine_for()
    assert gc.get_threshold() == (701, 11, 12)


def test_objects_are_frozen_where_the_setting_says_so(engines: None) -> None:
    with override_streams(GC_FREEZE=True):
        engine_for()
    assert gc.get_freeze_count() > 0
