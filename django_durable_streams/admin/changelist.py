"""The list of streams, and what all lists share. No list takes longer with more rows, and none loads data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Page, Paginator
from django.db import connections
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

from ..models import Chunk, Stream
from ..store import staged_rows
from .base import Pages, Row, StreamPages

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator

COUNT_LIMIT = 10_000
"""Rows that a list counts. With more rows it says "at least", and further pages stay reachable."""

MAX_ROWS_PER_ACTION = 500
"""Rows that one action changes. More would take too long, and Django accepts at most a thousand form fields."""

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
"""The columns that the list selects. A fork's lineage is long, so it is left out."""


class BoundedPaginator(_Paginator):
    """A paginator that counts up to a limit, and leaves out rows that the user may not see."""

    count_limit = COUNT_LIMIT
    may_see: Callable[[Any], bool] = staticmethod(lambda row: True)

    def page(self, number: int | str) -> Page[Any]:
        """Return a page without the rows that the user may not see."""
        page = super().page(number)
        page.object_list = [row for row in page.object_list if self.may_see(row)]
        return page

    @cached_property
    def count(self) -> int:
        """The number of rows, up to the limit."""
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by().values("pk")[: self.count_limit].count()

    @property
    def is_capped(self) -> bool:
        """Whether there may be more rows than the counted ones."""
        return self.count >= self.count_limit


def paginator(request: HttpRequest, queryset: QuerySet[Any], per_page: int, pages: Pages[Any]) -> BoundedPaginator:
    """Return a paginator that counts some pages further than the requested page.

    Args:
        request: the request for the page.
        queryset: the rows. The history of a row uses this paginator, too, with entries of the log.
        per_page: rows on a page.
        pages: the pages that know who may see which of their rows.
    """
    bounded = BoundedPaginator(queryset, per_page)
    if issubclass(queryset.model, pages.model):
        bounded.may_see = lambda row: pages.may(request, "view", row)
    page = request.GET.get(PAGE_VAR, "")
    number = min(int(page), MAX_PAGE) if page.isdecimal() and len(page) < 10 else 1
    bounded.count_limit = max(COUNT_LIMIT, (number + PAGES_AHEAD) * per_page)
    return bounded


class BoundedList(Pages[Row]):
    """A list of rows that counts up to a limit, and whose actions change a limited number of rows."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 100

    def get_paginator(
        self, request: HttpRequest, queryset: QuerySet[Row], per_page: int, *args: Any, **kwargs: Any
    ) -> BoundedPaginator:
        return paginator(request, queryset, per_page, self)

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Row], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Refuse actions on more than `MAX_ROWS_PER_ACTION` rows."""
        if (
            request.POST.get("select_across") == "1"
            and queryset.order_by()[MAX_ROWS_PER_ACTION : MAX_ROWS_PER_ACTION + 1].exists()
        ):
            text = _("An action can change at most %(limit)d %(names)s at once. Filter the list first.")
            names = self.opts.verbose_name_plural
            self.message_user(request, text % {"limit": MAX_ROWS_PER_ACTION, "names": names}, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, queryset, *args, **kwargs)


class StreamChangeList(ChangeList):
    """Finds the ids of a page first, and then loads the columns and the number of chunks of these streams only."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Stream]:
        streams: QuerySet[Stream] = super().get_queryset(request, exclude_parameters)
        return streams.only(*COLUMNS)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        pages: StreamPages = self.model_admin  # type: ignore[assignment]
        ids = [stream.pk for stream in self.result_list if pages.may(request, "view", stream)]
        page = self.queryset.filter(pk__in=ids)
        streams = list(page.annotate(chunk_count=_count(Chunk.objects.all()) + _count(staged_rows.chunks(page.db))))
        sources = {stream.source_id for stream in streams if stream.source_id is not None}
        visible = pages.visible(request, sources) if sources else {}
        for stream in streams:
            stream.visible_source = visible.get(stream.source_id or 0)
        self.result_list = streams


def _count(chunks: QuerySet[Any]) -> Coalesce:
    """Return an expression for a query of streams: the number of a stream's rows among these chunks."""
    of_stream = chunks.filter(stream_id=OuterRef("pk")).order_by().values("stream_id")
    count = Subquery(of_stream.annotate(count=Count("pk")).values("count"), output_field=IntegerField())
    return Coalesce(count, 0)


def beginning_with(queryset: QuerySet[Row], prefix: str, column: str = "path") -> QuerySet[Row]:
    """Return the rows whose path or name begins with a prefix. The query uses the index on every database.

    The prefix has no wildcards: `%` and `_` are plain characters.
    """
    if "\0" in prefix:
        return queryset.none()  # no path has a NUL, and PostgreSQL refuses text with one
    if connections[queryset.db].vendor not in ("sqlite", "mysql"):
        return queryset.filter(**{f"{column}__startswith": prefix})  # PostgreSQL has an index for LIKE
    # LIKE uses no index on these two, and ignores case on SQLite. Both compare by code points.
    queryset = queryset.filter(**{f"{column}__gte": prefix})
    end = _successor(prefix)
    return queryset if end is None else queryset.filter(**{f"{column}__lt": end})


def _successor(prefix: str) -> str | None:
    """Return the smallest text that is greater than all texts with a prefix, or None."""
    for last in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[last])
        if code < 0x10FFFF:
            next_code = 0xE000 if code == 0xD7FF else code + 1  # skips the surrogates, which are not characters
            return prefix[:last] + chr(next_code)
    return None
