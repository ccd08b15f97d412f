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
    next_look_at: datetime | None = None
    """When something happens by itself: another attempt, or the end of a lease."""

    def pending(self, streams: dict[str, ModelStream]) -> dict[str, tuple[int | None, int]]:
        """The cursor and the tail of each stream that has data after its cursor, by path."""
        return {
            path: (self.cursors.get(stream.number), stream.tail)
            for path, stream in streams.items()
            if stream.tail > self.cursors.get(stream.number, 0)
        }

    def is_due(self, now: datetime) -> bool:
        """Whether pending work begins a wake now."""
        if self.next_look_at is not None:
            return self.next_look_at <= now
        return not self.is_awake

    def begin(self) -> None:
        self.generation += 1
        self.is_awake = True
        self.is_claimed = False

    def rest(self) -> None:
        self.is_awake = self.is_claimed = False
        self.lease_ends_at = self.next_look_at = None

    def lease_runs(self, now: datetime) -> bool:
        return self.lease_ends_at is not None and self.lease_ends_at > now
