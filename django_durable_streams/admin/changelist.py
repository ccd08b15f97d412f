"""The list of streams: as fast with a million of them as with a hundred, and never with their data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Page, Paginator
from django.db import connections
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.functional import cached_property

from ..models import Chunk, Stream
from ..store import staged_rows
from .base import StreamPages

if TYPE_CHECKING:
    _Paginator = Paginator[Stream]
else:
    _Paginator = Paginator

COUNT_LIMIT = 10_000
"""Streams that are counted. Beyond the list says "more than", and goes on for as long as one turns its pages."""

PAGES_AHEAD = 10
MAX_PAGE = 1_000_000

COLUMNS = (
    "path",
    "content_type",
    "tail_position",
    "closed",
    "deadline",
    "deleted_at",
    "appended_at",
    "source_id",
)
"""What the list selects: not a fork's lineage, which is long."""


class BoundedPaginator(_Paginator):
    """A paginator that counts no further than people turn pages, and leaves out what its user may not see."""

    count_limit = COUNT_LIMIT
    may_see: Callable[[Stream], bool] = staticmethod(lambda stream: True)

    def page(self, number: int | str) -> Page[Stream]:
        """Return a page, with fewer streams on it where some may not be seen."""
        page = super().page(number)
        # The history of a stream comes through here, too.
        page.object_list = [row for row in page.object_list if not isinstance(row, Stream) or self.may_see(row)]
        return page

    @cached_property
    def count(self) -> int:
        """How many there are, up to the limit."""
        found: QuerySet[Stream] = self.object_list  # type: ignore[assignment]
        return found.order_by().values("pk")[: self.count_limit].count()

    @property
    def is_capped(self) -> bool:
        """Whether there may be more than were counted."""
        return self.count >= self.count_limit


def paginator(
    request: HttpRequest, queryset: QuerySet[Stream], per_page: int, may_see: Callable[[Stream], bool]
) -> BoundedPaginator:
    """Return a paginator that knows of some pages behind the one that is asked for."""
    found = BoundedPaginator(queryset, per_page)
    found.may_see = may_see
    page = request.GET.get(PAGE_VAR, "")
    number = min(int(page), MAX_PAGE) if page.isdecimal() and len(page) < 10 else 1
    found.count_limit = max(COUNT_LIMIT, (number + PAGES_AHEAD) * per_page)
    return found


class StreamChangeList(ChangeList):
    """Finds a page by ids, then asks for what it shows of those, the number of their chunks included."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Stream]:
        found: QuerySet[Stream] = super().get_queryset(request, exclude_parameters)
        return found.only(*COLUMNS)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        pages: StreamPages = self.model_admin  # type: ignore[assignment]
        ids = [stream.pk for stream in self.result_list if pages.may(request, "view", stream)]
        page = self.queryset.filter(pk__in=ids)
        found = list(page.annotate(chunk_count=_count(Chunk.objects.all()) + _count(staged_rows.chunks(page.db))))
        sources = {stream.source_id for stream in found if stream.source_id is not None}
        visible = pages.visible(request, sources) if sources else {}
        for stream in found:
            stream.visible_source = visible.get(stream.source_id or 0)
        self.result_list = found


def _count(chunks: QuerySet[Any]) -> Coalesce:
    """Return how many of some chunks a stream has, for a query of streams."""
    of_stream = chunks.filter(stream_id=OuterRef("pk")).order_by().values("stream_id")
    count = Subquery(of_stream.annotate(count=Count("pk")).values("count"), output_field=IntegerField())
    return Coalesce(count, 0)


def beginning_with(queryset: QuerySet[Stream], prefix: str) -> QuerySet[Stream]:
    """Return the streams whose path begins with a prefix, found by the index on every database.

    Everything in the prefix stands for itself, `%` and `_` too.
    """
    if "\0" in prefix:
        return queryset.none()  # no path has it, and PostgreSQL takes no text that has
    if connections[queryset.db].vendor not in ("sqlite", "mysql"):
        return queryset.filter(path__startswith=prefix)  # PostgreSQL's index leads to it
    # LIKE does without the index there, and with SQLite without case. Both compare code point by code point.
    queryset = queryset.filter(path__gte=prefix)
    end = _successor(prefix)
    return queryset if end is None else queryset.filter(path__lt=end)


def _successor(prefix: str) -> str | None:
    """Return the smallest text that is greater than everything that begins with a prefix, if there is one."""
    for last in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[last])
        if code < 0x10FFFF:
            following = 0xE000 if code == 0xD7FF else code + 1  # halves of surrogate pairs are no text
            return prefix[:last] + chr(following)
    return None
