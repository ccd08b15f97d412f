"""The result of one measurement: named values, or the reason why there are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


class MeasurementError(Exception):
    """The measurement did not measure what it claims to; its numbers must not be used."""


@dataclass(frozen=True)
class Outcome:
    """Values by name ("rate", "mb", "p50", "p99", ...) and everything that went wrong on the way."""

    values: dict[str, float] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: always one of the samples, so a p99 is a delivery that happened."""
    if not samples:
        raise MeasurementError("no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
