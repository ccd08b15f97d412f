"""A choice among the links of a subscription: all, those whose paths match a pattern, or one. Read page by page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from django.db.models import Q

from ..models import Subscription, SubscriptionLink
from ..protocol.globs import glob
from ..store.read import log_reader
from ..store.stream_info import StreamInfo
from .rows import links

LINKS_PER_PAGE = 1000


class Selection(NamedTuple):
    """Which links an operator means. By default all."""

    pattern: str = ""
    """Pattern of the paths of streams. Empty: any path."""
    link_id: int | None = None
    """Only this link."""
    visible: Callable[[Collection[str]], Collection[str]] | None = None
    """Returns the paths that the operator may view, of some paths. A pattern selects no other ones: the number of the
    selected links would tell which there are. None: all paths."""

    def pages(
        self, subscription: Subscription, using: str, condition: Q | None = None
    ) -> Iterator[list[SubscriptionLink]]:
        """Yield the chosen links of a subscription in the order of their keys, those that meet a condition.

        Raises:
            InvalidPath: no path can match the pattern.
        """
        matches = glob(self.pattern).matches if self.pattern else None
        query = links(using, subscription=subscription).filter(condition or Q()).order_by("pk")
        if self.link_id is not None:
            query = query.filter(pk=self.link_id)
        after = 0
        while rows := list(query.filter(pk__gt=after)[:LINKS_PER_PAGE]):
            after = rows[-1].pk
            if matches is not None:
                rows = [link for link in rows if matches(link.path)]
                shown = None if self.visible is None else self.visible({link.path for link in rows})
                rows = [link for link in rows if shown is None or link.path in shown]
            yield rows


def with_streams(rows: list[SubscriptionLink], using: str) -> list[tuple[SubscriptionLink, StreamInfo]]:
    """Return those links whose streams can be read now, with their streams. Takes one query."""
    ids = [link.stream_id for link in rows if link.stream_id is not None]
    infos = log_reader.find_ids(ids, using) if ids else {}
    return [(link, infos[link.stream_id]) for link in rows if link.stream_id in infos]
