"""`PullSubscription`: the subscription as workers in Python see it, of this project or of another server."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, closing, nullcontext
from typing import TYPE_CHECKING, TypedDict, Unpack

from ...protocol.arguments import MAX_NAME_LENGTH
from ...protocol.subscriptions import PULL_WAKE, SubscriptionConfig, normalise, opaque, subscription_id
from ...runtime import background
from ...runtime.servers import RunningServer, servers_around
from ...runtime.shutdown import signals_held
from ..extra import INSTALL
from .base import SubscriptionServer
from .local import LocalServer
from .loop import consume
from .synchronous import SyncWake
from .wake import Wake

if TYPE_CHECKING:
    from .http import Headers

POLL_INTERVAL = 10.0
"""Seconds between two claims without a wake event."""


class PullOptions(TypedDict, total=False):
    """The configuration of a pull-wake subscription. See `PullSubscription.ensure`."""

    wake_stream: str
    pattern: str
    streams: Iterable[str]
    lease: float
    description: str


class PullSubscription:
    """A pull-wake subscription, for its workers (specification, sections 6 and 7.2).

    Making the object does nothing yet.

    Args:
        name: id of the subscription.
        url: the root of the streams of another server, such as `https://streams.example.com/v1/stream/`. Empty: the
            subscription is one of this project. It is reached without HTTP, and without permissions.
        headers: for another server, headers of each request, such as Authorization, or a function that returns them.
        using: for this project, alias of the database. None: the database to which the router has streams written.

    Raises:
        SubscriptionError: no subscription can have this id.
    """

    def __init__(self, name: str, *, url: str = "", headers: Headers | None = None, using: str | None = None) -> None:
        self.name = subscription_id(name)
        self._url = url
        self._headers = headers or {}
        self._using = using

    def __repr__(self) -> str:
        return f"PullSubscription({self.name!r}{f', url={self._url!r}' if self._url else ''})"

    async def aensure(self, **options: Unpack[PullOptions]) -> bool:
        """Create the subscription, or confirm that it has this configuration. Creates the wake stream, too.

        Streams that exist already are linked at their ends, later ones at their beginning.

        Args:
            **options: the configuration:
                wake_stream: path of the stream for wake events.
                pattern: pattern of the streams: `*` is one whole segment, `**` any number of segments.
                streams: paths of streams, besides the pattern or in its place.
                lease: seconds until another worker takes over from one that is silent, 1 to 600. By default 30.
                description: text for people.

        Returns:
            Whether it was created now.

        Raises:
            SubscriptionError: the subscription has another configuration, or this one is invalid.
            DurableStreamsError: the server refuses, or does not answer.
        """
        config = SubscriptionConfig(
            PULL_WAKE,
            options.get("pattern", ""),
            tuple(options.get("streams", ())),
            wake_stream=options.get("wake_stream", ""),
            lease_ms=round(options.get("lease", 30.0) * 1000),
            description=options.get("description", ""),
        )
        server = self._server()
        try:
            return await server.ensure(normalise(config))
        finally:
            await server.close()

    def ensure(self, **options: Unpack[PullOptions]) -> bool:
        """The same as `aensure`. It commits by itself, and takes no part in a transaction."""
        return background.run(self.aensure(**options))

    def aconsume(
        self, worker: str = "", *, poll_interval: float = POLL_INTERVAL, timeout: float | None = None
    ) -> AsyncGenerator[Wake, None]:
        """Yield wakes: claim the subscription again and again.

        When the body of the loop comes back, the messages that the wake has handed over are acknowledged. If the body
        raises or leaves the loop, the lease is given back, and they are handed over again. Meanwhile the lease is
        extended. A wake that was lost to another worker ends quietly, and the loop goes on with the next one.

        Wrap it in `contextlib.aclosing` if a long-lived task may leave the loop: the lease is then given back at once.

        Args:
            worker: name of the worker, for people. By default it is made from the host and the process.
            poll_interval: seconds between two claims without a wake event.
            timeout: seconds to wait for a wake; after that the iterator ends. None: no limit. 0: no wait.

        Raises:
            SubscriptionError: there is no such subscription, or it is not one of the type pull-wake.
            DurableStreamsError: another server refuses.
        """
        return consume(self._server(), _worker_name(worker), poll_interval, timeout)

    def consume(
        self, worker: str = "", *, poll_interval: float = POLL_INTERVAL, timeout: float | None = None
    ) -> Iterator[SyncWake]:
        """The same as `aconsume`, for synchronous code outside of transactions. The lease is extended by a thread."""
        name = _worker_name(worker)
        servers = servers_around()

        async def wakes() -> AsyncGenerator[Wake, None]:  # the server object belongs to the background loop
            async with aclosing(consume(self._server(servers), name, poll_interval, timeout)) as claimed:
                async for wake in claimed:
                    yield wake

        # No server and no signal ends the loop in which the wake stream is followed.
        with nullcontext() if self._url else signals_held(), closing(background.iterate(wakes())) as claimed:
            for wake in claimed:
                yield SyncWake(wake)

    def _server(self, servers: Sequence[RunningServer] = ()) -> SubscriptionServer:
        if not self._url:
            return LocalServer(self.name, self._using, servers)
        try:
            from .remote import RemoteServer
        except ImportError as error:
            raise ImportError(f"To reach another server, packages are missing. {INSTALL}") from error
        return RemoteServer(self.name, self._url, self._headers)


def _worker_name(name: str) -> str:
    if name:
        return opaque("worker", name)
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"[-MAX_NAME_LENGTH:]
