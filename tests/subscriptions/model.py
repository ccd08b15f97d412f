"""One subscription as the specification describes it, in plain Python. A test compares the rows with it."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass
class ModelStream:
    """A stream. Each one has a number of its own, also at the path of an earlier one."""

    number: int
    tail: int = 0


@dataclass
class ModelSubscription:
    """The cursors and the wake of a subscription that follows all streams."""

    lease_seconds: float
    cursors: dict[int, int] = field(default_factory=dict)
    """Acknowledged positions by the number of the stream."""
    generation: int = 0
    is_awake: bool = False
    is_claimed: bool = False
    lease_ends_at: datetime | None = None
    is_paused: bool = False
    next_look_at: datetime | None = None
    """When something happens by itself: another attempt, or the end of a lease."""
    failures: int = 0
    is_counted: bool = False
    """Whether the failure of the present wake is among them. Otherwise the end of its lease is one."""

    def pending(self, streams: dict[str, ModelStream]) -> dict[str, tuple[int | None, int]]:
        """The cursor and the tail of each stream that has data after its cursor, by path."""
        return {
            path: (self.cursors.get(stream.number), stream.tail)
            for path, stream in streams.items()
            if stream.tail > self.cursors.get(stream.number, 0)
        }

    def is_due(self, now: datetime) -> bool:
        """Whether pending work begins a wake now."""
        if self.is_paused:
            return False
        if self.next_look_at is not None:
            return self.next_look_at <= now
        return not self.is_awake

    def begin(self) -> None:
        self.generation += 1
        self.is_awake = True
        self.is_claimed = self.is_counted = False

    def rest(self) -> None:
        self.is_awake = self.is_claimed = False
        self.lease_ends_at = self.next_look_at = None

    def succeed(self) -> None:
        self.rest()
        self.failures = 0

    def waits_after_silence(self, now: datetime) -> bool | None:
        """Whether a wake whose lease has ended in silence delays the next one. None: chance decides."""
        assert self.lease_ends_at is not None
        passed = (now - self.lease_ends_at).total_seconds() + self.lease_seconds
        delay = min(2.0**self.failures, 60.0)
        return True if passed < 0.8 * delay else False if passed >= 1.2 * delay else None

    def lease_runs(self, now: datetime) -> bool:
        return self.lease_ends_at is not None and self.lease_ends_at > now
