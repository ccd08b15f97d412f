"""The collector of prometheus_client: it reads the numbers of this process when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ...runtime.counting import HistogramValue
from ...stats import process_stats
from .families import Family, Kind, families

_SIMPLE: dict[Kind, type[CounterMetricFamily] | type[GaugeMetricFamily]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
}


class StreamsCollector(Collector):
    """Collects the metrics of this process."""

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, with their present values."""
        return map(to_metric, families(process_stats()))

    def describe(self) -> Iterable[Metric]:
        """Return no names: the collector must not be asked while the project starts."""
        return []


def to_metric(family: Family) -> Metric:
    """Return a metric in the form of prometheus_client."""
    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, value in family.series:
            assert isinstance(value, HistogramValue)
            histogram.add_metric(labels, buckets(value), value.total)
        return histogram
    metric = _SIMPLE[family.kind](family.name, family.help, labels=family.labels)
    for labels, value in family.series:
        assert not isinstance(value, HistogramValue)
        metric.add_metric(labels, value)
    return metric


def buckets(value: HistogramValue) -> list[tuple[str, float]]:
    """Return the buckets of a histogram by their upper bounds. Each bucket holds the values of the lower ones, too."""
    bounds = [floatToGoString(bound) for bound in (*value.bounds, float("inf"))]  # type: ignore[no-untyped-call]
    return list(zip(bounds, accumulate(value.counts), strict=True))
