"""What a project imports for its WebSockets in Channels' routing. See docs/websocket.md."""

from .server.websocket.consumer import StreamsConsumer

__all__ = ["StreamsConsumer"]
