"""What a wake-up backend is, and the one for a single process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated, NamedTuple, Protocol

from msgspec import Meta

from ...protocol.offsets import MAX_NUMBER
from ...store.operations import Commit

Number = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


class WakeUpMessage(NamedTuple):
    """What was committed to a stream, as it travels between processes. `data` is None where it is not along."""

    generation: Number
    start: Number
    tail: Number
    closed: bool
    removed: bool
    data: bytes | None
    ends: list[Number]

    @property
    def is_sound(self) -> bool:
        """Whether it says what a commit can be: its data fits between where it began and where it ended."""
        if self.start > self.tail:
            return False
        if not self.data:
            return not self.ends
        in_order = all(one < other for one, other in pairwise((self.start, *self.ends)))
        return len(self.data) == self.tail - self.start and self.ends[-1:] == [self.tail] and in_order


class WakeUpListener(Protocol):
    """Who is told of news: the hub of an event loop, in that loop."""

    def receive(self, stream_id: int, news: WakeUpMessage) -> None:
        """Take in news of a stream."""

    def look_again(self) -> None:
        """News may have been lost: look at the database."""


class Subscriber(ABC):
    """Listens for one event loop."""

    @property
    def hears(self) -> bool:
        """Whether news arrive now, as far as can be known: then readers need not look at the database as often."""
        return False

    @abstractmethod
    async def subscribe(self, stream_id: int) -> None:
        """Listen for a stream. Returns when news of it arrive from now on, or when that cannot be had quickly."""

    @abstractmethod
    def unsubscribe(self, stream_id: int) -> None:
        """Listen no longer."""

    @abstractmethod
    def close(self) -> None:
        """End all of it."""


class Wakeup(ABC):
    """Carries news between processes. News may be lost, doubled or late: readers look at the database too."""

    @abstractmethod
    def publish(self, commits: list[Commit]) -> None:
        """Send news soon, without making the caller wait. Safe to call from any thread."""

    @abstractmethod
    def publish_now(self, commits: list[Commit]) -> None:
        """Send news before returning, for processes that may end right after. Never raises."""

    @abstractmethod
    def subscriber(self, audience: WakeUpListener) -> Subscriber | None:
        """Return what listens for the running event loop, or None where nothing can be heard."""

    @abstractmethod
    def check(self) -> bool:
        """Return whether news can be sent now. May wait for a second."""

    @abstractmethod
    def stop(self) -> None:
        """End what runs."""


class InProcessWakeup(Wakeup):
    """No news leave the process: readers elsewhere find them by their own look at the database.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self.using = using

    def publish(self, commits: list[Commit]) -> None:
        """Do nothing."""

    def publish_now(self, commits: list[Commit]) -> None:
        """Do nothing."""

    def subscriber(self, audience: WakeUpListener) -> Subscriber | None:
        """There is nothing to listen to."""
        return None

    def check(self) -> bool:
        """There is nothing that could fail."""
        return True

    def stop(self) -> None:
        """Do nothing."""
