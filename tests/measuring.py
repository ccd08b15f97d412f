"""What the coverage is measured on: on Python before 3.14 a measured test takes twice the time of the processor.

Tests of servers are left out, whose code runs in other processes, and so is a test function that has been measured for
a while: its further cases and examples take the same ways.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from coverage import Coverage

ELSEWHERE = {"browser", "cluster", "conformance", "entry_points", "hostile", "projects", "simulation"}
"""Directories whose tests start processes."""

ENOUGH_SECONDS = 0.3
"""Time of the processor for which a test function is measured, at least one case of it. With a second, four
files of tests of the server took 33 s of it, and 20 s without any measuring.
"""

_measured: defaultdict[str, float] = defaultdict(float)


@contextmanager
def measuring(item: pytest.Item, directory: str) -> Iterator[None]:
    """Measure what runs in this block, unless it fails."""
    coverage = Coverage.current()
    function = item.nodeid.partition("[")[0]
    if coverage is None:
        yield
    elif directory in ELSEWHERE or _measured[function] >= ENOUGH_SECONDS:
        coverage.stop()
        try:
            yield
        finally:
            coverage.start()
    else:
        began = time.process_time()
        yield
        _measured[function] += time.process_time() - began
