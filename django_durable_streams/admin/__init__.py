"""Streams in Django's admin: found, looked at, followed live, appended to, closed, forked and deleted.

Everything goes by Django's permissions on `Stream`. Chunks and producers are not registered: they are large, and a
stream's own page shows what there is to see of them.
"""

from .options import StreamAdmin

__all__ = ["StreamAdmin"]
