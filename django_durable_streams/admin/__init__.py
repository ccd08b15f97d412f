"""Streams in Django's admin: search, read, follow live, append, close, fork and delete.

All pages need Django's permissions on `Stream`. Chunks and producers are not registered, because their tables are
large. A stream's page shows them.
"""

from .options import StreamAdmin
from .subscriptions import SubscriptionAdmin

__all__ = ["StreamAdmin", "SubscriptionAdmin"]
