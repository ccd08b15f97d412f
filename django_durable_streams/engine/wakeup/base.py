"""The interface of wake-up backends, and the backend of a single process.

Messages may be lost, doubled or late. Correctness never depends on them: hubs poll the database too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated, NamedTuple, Protocol

from msgspec import Meta

from ...protocol.offsets import MAX_NUMBER
from ...store.operations import Commit

Number = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


DELIVERY_CHANNEL = 2**63 - 1
"""The number of a channel that no stream has: commits to streams with subscriptions are told there, too."""

TEST_CHANNEL = 2**63 - 3
"""The number of a channel that no stream has, and that nobody receives."""


STOP_SECONDS = 2.0
"""How long the end of a backend waits for the messages that it has not sent yet."""


class WakeupProblem(NamedTuple):
    """Why messages cannot be sent now."""

    text: str
    """What has happened, as a sentence."""
    remedy: str = ""
    """What to do, as a sentence. Empty: the service has to answer again."""


class WakeUpMessage(NamedTuple):
    """One commit to a stream, as it travels between processes. `data` is None if the message does not carry it."""

    generation: Number
    start: Number
    tail: Number
    closed: bool
    removed: bool
    data: bytes | None
    ends: list[Number]
    sent_at: Number = 0
    """When the message was made, in microseconds since 1970. For statistics only: clocks of machines differ."""

    def as_hint(self) -> WakeUpMessage:
        """Return a message that leads to a query, and shows nothing: a stream that seems removed is queried."""
        return self._replace(removed=True, data=None, ends=[])

    @property
    def is_sound(self) -> bool:
        """Whether the message is a possible commit: its data fits exactly between its start and its tail."""
        if self.start > self.tail:
            return False
        if not self.data:
            return not self.ends
        in_order = all(first < second for first, second in pairwise((self.start, *self.ends)))
        return len(self.data) == self.tail - self.start and self.ends[-1:] == [self.tail] and in_order


class WakeUpListener(Protocol):
    """The receiver of messages in one event loop: its hub."""

    def receive(self, stream_id: int, message: WakeUpMessage) -> None:
        """Apply a message about a stream."""

    def poll_all(self) -> None:
        """Query all watched streams, because messages may have been lost."""


class Subscriber(ABC):
    """Receives messages for one event loop."""

    @property
    def is_receiving(self) -> bool:
        """Whether messages arrive now, as far as the subscriber can know. Then the hub polls less often."""
        return False

    @abstractmethod
    async def subscribe(self, stream_id: int) -> None:
        """Receive messages about a stream. Returns once they arrive, or after a short time without success."""

    @abstractmethod
    def unsubscribe(self, stream_id: int) -> None:
        """Receive no more messages about a stream."""

    @abstractmethod
    def close(self) -> None:
        """End the subscriber with its tasks."""


class Wakeup(ABC):
    """Carries messages about commits between processes, for the streams of one database."""

    carries_messages = True
    """Whether processes learn of each other's commits by messages."""

    @abstractmethod
    def publish(self, commits: list[Commit]) -> None:
        """Send messages about commits soon, without a wait. Safe to call from any thread."""

    @abstractmethod
    def publish_now(self, commits: list[Commit]) -> None:
        """Send messages about commits before this returns. May wait for a second. Never raises."""

    @abstractmethod
    def subscriber(self, listener: WakeUpListener) -> Subscriber | None:
        """Return a subscriber for the running event loop. None: this backend receives no messages."""

    @abstractmethod
    def find_problem(self) -> WakeupProblem | None:
        """Return why messages cannot be sent now. None: they can. May wait for two seconds."""

    @abstractmethod
    def wait_until_sent(self, seconds: float) -> None:
        """Wait for the messages that are not sent yet, some seconds at most. For processes that may vanish."""

    @abstractmethod
    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Send the waiting messages, within some seconds, and end all threads. A later message starts them again."""


class InProcessWakeup(Wakeup):
    """Sends no messages. Readers of other processes learn of commits by polling.

    Args:
        using: alias of the database.
    """

    carries_messages = False

    def __init__(self, using: str) -> None:
        self.using = using

    def publish(self, commits: list[Commit]) -> None:
        """Do nothing."""

    def publish_now(self, commits: list[Commit]) -> None:
        """Do nothing."""

    def subscriber(self, listener: WakeUpListener) -> Subscriber | None:
        """Return None, because there are no messages."""
        return None

    def find_problem(self) -> WakeupProblem | None:
        """Return None, because nothing can fail."""
        return None

    def wait_until_sent(self, seconds: float) -> None:
        """Do nothing."""

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Do nothing."""
