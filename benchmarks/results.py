"""The numbers of a run, as they were measured; saved as JSON and read back."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.rows import Share


@dataclass(frozen=True)
class Sample:
    """One value of one row on one target in one round. `error`: the reason why it does not count, or None."""

    round: int
    target: str
    row: str
    value: float | None
    error: str | None = None


@dataclass(frozen=True)
class Cell:
    """All samples of one row on one target. Samples with errors are listed, but do not count."""

    values: tuple[float, ...]
    errors: tuple[str, ...]

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None


@dataclass
class Results:
    titles: dict[str, str]
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def cell(self, target: str, row: str) -> Cell:
        mine = [sample for sample in self.samples if (sample.target, sample.row) == (target, row)]
        return Cell(
            tuple(sample.value for sample in mine if sample.value is not None and sample.error is None),
            tuple(f"round {sample.round + 1}: {sample.error}" for sample in mine if sample.error),
        )

    def share(self, target: str, share: Share, ceiling: str) -> Cell:
        """Return percentages of the ceiling for each round, because other load in a round slows both."""
        rates: dict[tuple[str, int], float] = {
            (sample.target, sample.round): sample.value
            for sample in self.samples
            if sample.row == share.of and sample.value is not None and sample.error is None
        }
        values = [
            rate / rates[ceiling, number] * 100
            for (name, number), rate in rates.items()
            if name == target and rates.get((ceiling, number))
        ]
        return Cell(tuple(values), ())

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        raw = json.loads(path.read_text())
        raw["samples"] = [Sample(**sample) for sample in raw["samples"]]
        return cls(**raw)
