"""The application for sockets: opens a socket or refuses it. It is public as `django_durable_streams.channels`."""

from __future__ import annotations

import logging

from ...engine import engine_for
from ...protocol import websocket
from ...protocol.errors import DurableStreamsError, ServiceUnavailable
from ..lifespan import Message, Receive, Scope, Send
from .closing import TRY_AGAIN_LATER, close
from .handshake import Handshake
from .session import Session

logger = logging.getLogger("django_durable_streams.access")


class StreamsConsumer:
    """An ASGI application that serves many streams over each WebSocket (docs/websocket.md)::

        application = ProtocolTypeRouter({
            "http": DurableStreams(fallback=django_application),
            "websocket": AuthMiddlewareStack(URLRouter([path("v1/ws/", StreamsConsumer.as_asgi())])),
        })

    It has the interface of Channels' consumers, and needs no channel layer.
    """

    @classmethod
    def as_asgi(cls) -> StreamsConsumer:
        """Return the application."""
        return cls()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket.

        Raises:
            ValueError: the scope is no WebSocket's.
        """
        if scope["type"] != "websocket":
            raise ValueError(f"StreamsConsumer serves WebSockets, and not the protocol {scope['type']}.")
        message = await receive()
        if message["type"] != "websocket.connect":
            return  # the client has left
        try:
            handshake = Handshake(scope)
        except DurableStreamsError as error:
            # A page cannot read the answer to a handshake, so the log has the reason.
            logger.warning("A WebSocket is refused. %s", error)
            await send({"type": "websocket.close"})
            return
        await send(_accept(handshake))
        try:
            slot = engine_for().live_reader_limit.acquire()
        except ServiceUnavailable as error:
            frame = websocket.error_frame(error.status, error.problem(), dict(error.headers), request=None, name=None)
            await send({"type": "websocket.send", "text": frame.content})
            await close(send, TRY_AGAIN_LATER, error.title)
            return
        try:
            await Session(handshake, receive, send).run()
        finally:
            slot.release()


def _accept(handshake: Handshake) -> Message:
    accept: Message = {"type": "websocket.accept"}
    if handshake.subprotocol is not None:
        accept["subprotocol"] = handshake.subprotocol
    return accept
