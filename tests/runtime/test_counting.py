"""Numbers that threads count: no increment is lost, and a snapshot does not change."""

import os
from threading import Barrier, Thread

from django_durable_streams.runtime.counting import Counts, Histogram, HistogramValue, PerThread, add_up


def in_threads(number: int, work: object) -> None:
    """Let threads do some work at once."""
    assert callable(work)
    start = Barrier(number)

    def run() -> None:
        start.wait()
        work()

    threads = [Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_counts_of_all_threads_are_added_up() -> None:
    counts: Counts[str] = Counts()

    def work() -> None:
        for _ in range(2000):
            counts.add("a")
        counts.add("b", 5)

    in_threads(8, work)
    assert counts.totals() == {"a": 16_000, "b": 40}


def test_totals_can_be_read_while_threads_count() -> None:
    counts: Counts[int] = Counts()
    in_threads(4, lambda: [(counts.add(number), counts.totals()) for number in range(300)])
    assert counts.totals() == dict.fromkeys(range(300), 4)


def test_a_thread_has_an_object_of_its_own() -> None:
    objects: PerThread[list[int]] = PerThread(list)
    here = objects.here()
    in_threads(1, lambda: objects.here().append(1))
    assert objects.here() is here == []
    assert [1] in objects.everywhere()


def test_a_value_counts_in_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((1.0, 2.0, 4.0))
    for value in (0.0, 1.0, 1.5, 2.0, 4.1):
        histogram.observe(value)
    result = histogram.value()
    assert result == HistogramValue((1.0, 2.0, 4.0), (2, 2, 0, 1), 8.6)
    assert (result.count, result.mean) == (5, 8.6 / 5)
    histogram.observe(1)
    assert result.count == 5


def test_quantiles_are_bounds() -> None:
    assert HistogramValue((1.0, 2.0, 4.0), (2, 2, 0, 1), 0).quantile(0.4) == 1.0
    assert HistogramValue((1.0, 2.0, 4.0), (2, 2, 0, 1), 0).quantile(0.5) == 2.0
    assert HistogramValue((1.0, 2.0, 4.0), (2, 2, 0, 1), 0).quantile(0.99) == 4.0
    assert HistogramValue((1.0, 2.0, 4.0), (0, 0, 0, 0), 0).quantile(0.99) == 0.0
    assert HistogramValue((1.0,), (0, 0), 0).mean == 0.0


def test_histograms_are_added_up() -> None:
    first, second = Histogram((1.0,)), Histogram((1.0,))
    first.observe(1)
    second.observe(1)
    second.observe(3)
    assert add_up([first, second], (1.0,)) == HistogramValue((1.0,), (2, 1), 5.0)
    assert add_up([], (1.0,)) == HistogramValue((1.0,), (0, 0), 0.0)


def test_a_fork_of_the_process_begins_at_zero() -> None:
    counts: Counts[str] = Counts()
    counts.add("a")
    child = os.fork()
    if child == 0:
        os._exit(0 if counts.totals() == {} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counts.totals() == {"a": 1}
