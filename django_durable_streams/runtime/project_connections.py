"""Connections that code of the project uses in threads of the service.

Django closes old and broken ones around each request that passes through it. Nobody else does so in other threads.
"""

from __future__ import annotations

from contextlib import suppress

from django.db import Error, connections


def close_other_connections(using: str = "", *, only_broken: bool = False) -> None:
    """Close connections of this thread that are too old or broken, as requests do at their beginning and end.

    Args:
        using: alias of the database whose connection stays. Empty: none does.
        only_broken: whether to look only at those that have met an error.
    """
    for connection in connections.all(initialized_only=True):
        if connection.alias == using or (only_broken and not connection.errors_occurred):
            continue
        with suppress(Error):
            connection.close_if_unusable_or_obsolete()
        if connection.connection is None:
            connection.errors_occurred = False
