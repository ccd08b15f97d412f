"""Which streams a page about subscriptions may name: those that the user may view in the admin of streams.

A subscription knows paths of many streams: of its links, of its wake stream and its dead letters, and sometimes its
pattern is one. A permission on the subscription says nothing about these streams.
"""

from __future__ import annotations

from collections.abc import Collection

from django.contrib.admin import AdminSite
from django.http import HttpRequest

from ...models import Stream
from ...protocol.globs import glob
from ..base import StreamPages


class StreamNames:
    """The streams that one request may name.

    A site without an admin of streams asks for Django's permission to view streams.

    Args:
        site: the site of the page.
        request: the request for the page.
        using: alias of the database.
    """

    def __init__(self, site: AdminSite, request: HttpRequest, using: str) -> None:
        self._request = request
        self._using = using
        self._has_pages = site.is_registered(Stream)
        pages = site.get_model_admin(Stream) if self._has_pages else None
        self._pages = pages if isinstance(pages, StreamPages) else None

    def of(self, paths: Collection[str]) -> dict[str, str]:
        """Return those of some paths that may be named, with the URL of the stream's page or an empty text.

        Takes at most two queries.
        """
        if self._pages is None:
            return dict.fromkeys(paths, "") if self._may_view_all() else {}
        streams = Stream.objects.using(self._using).filter(path__in=paths).values_list("path", "pk")
        ids = {path: pk for path, pk in streams if path is not None}
        visible = self._pages.visible(self._request, ids.values()) if ids else {}
        named = {path: self._pages.url("change", pk) for path, pk in ids.items() if pk in visible}
        for path in paths:
            if path not in ids and self._pages.may_name(self._request, path):
                named[path] = ""
        return named

    def _may_view_all(self) -> bool:
        user = self._request.user
        names = ("durable_streams.view_stream", "durable_streams.change_stream")
        return not self._has_pages and any(user.has_perm(name) for name in names)


def only_path(pattern: str) -> str | None:
    """Return the only path that a pattern matches, or None for a pattern with wildcards."""
    compiled = glob(pattern) if pattern else None
    return pattern if compiled is not None and compiled.prefix == pattern else None
