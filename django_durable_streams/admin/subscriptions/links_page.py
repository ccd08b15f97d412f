"""A page of the links of a subscription: the cursor, the lag and the state of each. Its queries do not depend on rows.

Lags are computed for this page only. Links to streams that the user may not view are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet, TextChoices
from django.db.models.functions import Right
from django.http import QueryDict
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ...models import Subscription, SubscriptionLink
from ...protocol.offsets import Sentinel
from ...store.read import lineage
from ...store.stream_info import StreamInfo
from ...subscriptions.selection import with_streams
from .. import moments
from ..changelist import beginning_with
from .states import IS_FOLLOWED, State
from .stream_names import StreamNames

LINKS_PER_PAGE = 50

ERROR_LENGTH = 4000
"""Characters of an error that a page shows, from its end."""


class Show(TextChoices):
    """Which links a page shows."""

    ALL = "", _("All")
    PENDING = "pending", _("Pending")
    TROUBLE = "trouble", _("With errors")

    def condition(self) -> Q:
        """Return the condition for these links."""
        match self:
            case Show.PENDING:
                return Q(is_pending=True) & IS_FOLLOWED
            case Show.TROUBLE:
                return Q(is_pending=True) & IS_FOLLOWED & (Q(is_stopped=True) | Q(failures__gt=0))
        return Q()


@dataclass(frozen=True)
class LinkRow:
    """A link for display."""

    id: int
    path: str
    url: str
    """Of the stream's page, or empty."""
    is_explicit: bool
    is_glob: bool
    cursor: str
    """The offset up to which all is acknowledged."""
    lag: int | None
    """Bytes after the cursor. None: there is no stream."""
    state: State
    lease_ends: SafeString | None
    next_attempt: SafeString | None
    failures: int
    error: str

    @property
    def may_reset(self) -> bool:
        """Whether a cursor can be set: there is a stream, and its subscription follows it."""
        return not self.state.is_of_links_only

    @property
    def may_retry(self) -> bool:
        """Whether the link waits for another attempt, or for somebody who resumes it."""
        return self.state is State.STOPPED or self.next_attempt is not None

    @property
    def error_line(self) -> str:
        """The last line of the error, which says what it is after a traceback."""
        return self.error.rstrip().rpartition("\n")[2]


@dataclass(frozen=True)
class LinksPage:
    """A page of links, and what was asked for."""

    rows: list[LinkRow]
    show: Show
    prefix: str
    is_first: bool
    next_after: int | None
    """Id of the last link that was looked at, if others follow it."""

    def query(self, **changes: Any) -> str:
        """Return the query of a link to another page."""
        query = QueryDict(mutable=True)
        query.update({"show": self.show.value, "path": self.prefix, **changes})
        return "?" + "&".join(part for part in query.urlencode().split("&") if not part.endswith("="))

    @property
    def tabs(self) -> list[tuple[Show, str]]:
        """All choices of links, with the queries of their pages."""
        return [(show, self.query(show=show.value)) for show in Show]

    @property
    def next_query(self) -> str:
        """The query of the next page."""
        return self.query(after=self.next_after)

    @property
    def first_query(self) -> str:
        """The query of the first page."""
        return self.query()


def links_page(subscription: Subscription, parameters: QueryDict, names: StreamNames, using: str) -> LinksPage:
    """Return the requested page of links, in the order of their paths.

    Args:
        subscription: the subscription.
        parameters: the query of the request: `show`, `path` (a beginning of paths), and `after`, the id of a link. An
            id, because the path of that link may be one that the user may not see.
        names: which streams may be named.
        using: alias of the database.
    """
    wanted = parameters.get("show", "")
    show = Show(wanted) if wanted in Show.values else Show.ALL
    prefix = parameters.get("path", "")
    query = _links(subscription, using).filter(show.condition()).order_by("path")
    if prefix:
        query = beginning_with(query, prefix)
    after = parameters.get("after", "")
    if after.isdecimal() and len(after) < 19:
        last_path = _links(subscription, using).filter(pk=int(after)).values_list("path", flat=True).first()
        query = query if last_path is None else query.filter(path__gt=last_path)
    links = list(query[: LINKS_PER_PAGE + 1])
    has_more = len(links) > LINKS_PER_PAGE
    links = links[:LINKS_PER_PAGE]
    rows = _describe(links, names, using)
    return LinksPage(rows, show, prefix, not after, links[-1].pk if has_more else None)


def link_row(subscription: Subscription, link_id: str, names: StreamNames, using: str) -> LinkRow | None:
    """Return one link, if the subscription has it and its stream may be named."""
    if not (link_id.isdecimal() and len(link_id) < 19):
        return None
    rows = _describe(list(_links(subscription, using).filter(pk=int(link_id))), names, using)
    return rows[0] if rows else None


def _links(subscription: Subscription, using: str) -> QuerySet[SubscriptionLink]:
    links = SubscriptionLink.objects.using(using).filter(subscription=subscription)
    return links.defer("last_error").annotate(error=Right("last_error", ERROR_LENGTH))


def _describe(links: list[SubscriptionLink], names: StreamNames, using: str) -> list[LinkRow]:
    urls = names.of([link.path for link in links]) if links else {}
    shown = [link for link in links if link.path in urls]
    present = with_streams(shown, using)
    requests = [(info, link.acked_position or 0, link.acked_position or 0) for link, info in present]
    infos = {link.pk: info for (link, _), info in zip(present, lineage.look_up(requests, using), strict=True)}
    return [_row(link, urls[link.path], infos.get(link.pk)) for link in shown]


def _row(link: SubscriptionLink, url: str, info: StreamInfo | None) -> LinkRow:
    position = link.acked_position
    is_followed = link.is_glob or link.is_explicit
    lag = None if info is None else info.bytes_after(position)
    return LinkRow(
        id=link.pk,
        path=link.path,
        url=url,
        is_explicit=link.is_explicit,
        is_glob=link.is_glob,
        cursor=Sentinel.START.value if info is None or position is None else info.token(position),
        lag=lag,
        state=State.of_link(link, lag),
        lease_ends=moments.seconds_ahead(link.lease_expires_at),
        next_attempt=moments.seconds_ahead(link.next_attempt_at) if is_followed else None,
        failures=link.failures,
        error=link.error,  # type: ignore[attr-defined]  # an annotation
    )
