"""What a project imports to declare consumers, in the module `streams` of an app. See docs/consumers.md."""

from .subscriptions.consumers.declarations import Consumer, consumer
from .subscriptions.consumers.messages import Batch, Message

__all__ = ["Batch", "Consumer", "Message", "consumer"]
