"""Automatic batches become as large as a handler is fast, and fixed ones stay as they are."""

import pytest

from django_durable_streams.consumers import Batch, consumer
from django_durable_streams.models import Stream
from django_durable_streams.subscriptions.consumers import batch_size
from django_durable_streams.subscriptions.consumers.batch_size import AUTO_SECONDS, FIRST_SIZE, MAX_SIZE, BatchSizer
from django_durable_streams.testing import run_consumers


def test_a_fixed_size_stays() -> None:
    sizer = BatchSizer(7)
    sizer.note(7, 0.0)
    sizer.note(7, 100.0)
    assert sizer.size == 7


def test_an_automatic_size_grows_while_full_batches_are_fast_up_to_a_limit() -> None:
    sizer = BatchSizer("auto")
    assert sizer.size == FIRST_SIZE
    sizer.note(FIRST_SIZE, 0.0)
    assert sizer.size == 2 * FIRST_SIZE
    for _ in range(30):
        sizer.note(sizer.size, 0.0)
    assert sizer.size == MAX_SIZE


@pytest.mark.parametrize("messages", [1, FIRST_SIZE - 1])
def test_a_batch_that_is_not_full_does_not_tell_that_more_would_be_fast(messages: int) -> None:
    sizer = BatchSizer("auto")
    sizer.note(messages, 0.0)
    assert sizer.size == FIRST_SIZE


@pytest.mark.parametrize(("seconds", "size"), [(2 * AUTO_SECONDS, FIRST_SIZE // 2), (1000.0, 1)])
def test_an_automatic_size_shrinks_to_what_would_have_been_fast_enough(seconds: float, size: int) -> None:
    sizer = BatchSizer("auto")
    sizer.note(FIRST_SIZE, seconds)
    assert sizer.size == size
    sizer.note(size, 0.0)
    assert sizer.size == 2 * size


def test_a_size_that_fits_stays() -> None:
    sizer = BatchSizer("auto")
    sizer.note(FIRST_SIZE, 0.8 * AUTO_SECONDS)
    assert sizer.size == FIRST_SIZE


@pytest.mark.django_db
def test_a_consumer_gets_larger_and_larger_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "AUTO_SECONDS", 1000.0)
    sizes = []

    @consumer("numbers", name="sizes", batch_size="auto")
    def note(batch: Batch) -> None:
        sizes.append(len(batch))

    Stream.objects.create(path="numbers", content_type="application/json").append_many([*range(100)])
    assert run_consumers("sizes") == 100
    assert sizes == [10, 20, 40, 30]
