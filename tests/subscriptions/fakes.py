"""A service whose functions are replaced, for tests of the requests alone."""

from collections.abc import Callable
from typing import Any

from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.runtime.backlog import Backlog


class FakeService:
    """Records the calls of the functions behind the routes, and returns what a test has set."""

    using = "default"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.wakes = 0
        self.linked: list[Any] = []
        self.outcomes: dict[str, Any] = {
            "create": ("the subscription", True),
            "_describe": (1, b'{"id":"sub-1"}'),
            "_encode_links": (b'{"path":"a"}', None),
            "claim": {"wake_id": "w_1", "token": "secret"},
            "ack": False,
            "callback": False,
            "jwks": b'{"keys":[]}',
        }
        self.descriptions = Backlog(1, 1_000_000)
        self.error: DurableStreamsError | None = None

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        self.calls.append((function.__name__, *args))
        if self.error is not None:
            raise self.error
        return self.outcomes.get(function.__name__)

    async def link_existing(self, subscription: Any) -> None:
        self.linked.append(subscription)

    def wake(self) -> None:
        self.wakes += 1
