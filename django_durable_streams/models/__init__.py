"""The tables. Only `store` writes them."""

from . import fixtures  # noqa: F401  checks the rows of fixtures that refer to streams
from .chunk import Chunk, StagedChunk
from .guard import ReadOnlyModelError
from .identity import DatabaseIdentity
from .producer import Producer
from .registry_entry import RegistryEntry
from .retention import Retention
from .signing_key import SigningKey
from .stream import Stream, StreamQuerySet
from .subscription import Subscription, SubscriptionLink

__all__ = [
    "Chunk",
    "DatabaseIdentity",
    "Producer",
    "ReadOnlyModelError",
    "RegistryEntry",
    "Retention",
    "SigningKey",
    "StagedChunk",
    "Stream",
    "StreamQuerySet",
    "Subscription",
    "SubscriptionLink",
]
