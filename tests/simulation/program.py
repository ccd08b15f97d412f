"""What a seed stands for: how many processes, which streams, who does what, and what goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .faults import Rates
from .history import BYTES, JSON, TEXT


@dataclass
class Path:
    """A stream that clients use.

    lasting: nobody deletes it, so everything that was appended is there in the end.
    """

    name: str
    content_type: str
    lasting: bool
    closes: bool = False
    """Somebody closes it before the end."""


@dataclass
class Program:
    """A run."""

    seed: int
    rates: Rates
    processes: int
    switching: float
    paths: list[Path]
    writers: int
    producers: int
    readers: int
    tails: int
    transactions: int
    """How many Python programs work in the processes, each with some transactions."""
    makers: int
    """Clients that create, fork and delete."""
    operations: int
    """Of each client."""
    pace: float
    """Seconds between two operations of a client, at the most."""
    instances: bool
    """Programs append by instances that they have kept for a while."""
    saves: bool
    """Programs save instances that they have kept for a while."""
    small: bool
    """Small pages, and what usually takes thousands of chunks happens with a few."""
    forkers: int = 0
    mortals: int = 0
    """Clients that use a stream with a TTL."""
    jobs: int = 0
    """Python programs that write by a writer, and go on in another process when theirs is killed."""
    is_harsh: bool = False
    """Chunks are merged as soon as there are some."""

    @classmethod
    def of(cls, seed: int) -> Program:
        """Return the program of a seed."""
        rng = random.Random(f"{seed}/program")
        lasting = [
            Path(f"s{number}", rng.choice((TEXT, BYTES, JSON)), True, rng.random() < 0.25)
            for number in range(rng.choice((1, 1, 2, 3)))
        ]
        makers = rng.choice((0, 0, 1, 2))
        others = [Path(f"v{number}", rng.choice((TEXT, JSON)), False) for number in range(rng.choice((1, 2)))]
        rates = Rates.some(rng)
        more = random.Random(f"{seed}/more")
        mortals = more.choice((0, 0, 1, 2))
        return cls(
            seed=seed,
            rates=replace(rates, clock_jump=0.0) if mortals else rates,
            processes=rng.choice((1, 2, 2, 3)),
            switching=rng.choice((0.02, 0.1, 0.3, 0.7)),
            paths=lasting + (others if makers else []),
            writers=rng.choice((1, 2, 3)),
            producers=rng.choice((1, 1, 2)),
            readers=rng.choice((1, 2, 3)),
            tails=rng.choice((0, 0, 1)),
            transactions=rng.choice((0, 1, 2)),
            makers=makers,
            operations=rng.choice((8, 15, 25)),
            pace=rng.choice((0.02, 0.3, 1.0)),
            instances=rng.random() < 0.4,
            saves=rng.random() < 0.1,
            small=rng.random() < 0.5,
            forkers=more.choice((0, 0, 1)),
            mortals=mortals,
            jobs=more.choice((0, 0, 1)),
        )

    def harsh(self) -> Program:
        """Return the same, but that much is merged, slowly, and processes are killed in the middle of it."""
        rates = replace(self.rates, killed_process=0.9, slow_statement=0.3)
        return replace(self, is_harsh=True, small=True, rates=rates, processes=3, writers=3, operations=25, pace=0.1)

    def __str__(self) -> str:
        paths = ", ".join(f"{path.name} {path.content_type}{' closes' * path.closes}" for path in self.paths)
        return (
            f"seed {self.seed}: {self.processes} processes, {self.writers} writers, {self.producers} producers, "
            f"{self.readers} readers, {self.tails} tails, {self.transactions} transactions, {self.makers} makers, "
            f"{self.forkers} forkers, {self.mortals} mortals, {self.jobs} jobs, "
            f"{self.operations} operations each, pace {self.pace}, switching {self.switching}, "
            f"{'small, ' * self.small}{'instances, ' * self.instances}{'saves, ' * self.saves}"
            f"paths: {paths}\n  faults: {self.rates}"
        )
