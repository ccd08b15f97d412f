"""Pages that show a stream: its facts, a page of messages, its forks and its producers. All parts have limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.utils.translation import gettext as _

from ..models import Chunk, Producer, Stream
from ..protocol import content, offsets
from ..protocol.errors import InvalidOffset, OffsetGone
from ..protocol.segments import Message
from ..store import staged_rows
from ..store.read import browsing, lineage, log_reader
from ..store.stream_info import StreamInfo
from .base import of_row
from .forms import AppendForm
from .rendering import LIST_LIMIT, PAGE_LIMIT, DisplayedMessage, display
from .retention import describe
from .signed_links import SignedLinkView
from .states import Kind, State

PAGE_MESSAGES = 50
PAGE_BYTES = 256 * 1024
"""Limits of the messages on a page. A single larger message is still shown."""

MAX_ROWS_LISTED = 10
"""Forks, and producers, on a stream's page. Links lead to the complete lists."""

MAX_FORKS_CHECKED = 200
"""Forks whose permissions a page checks, to find those that the user may see."""

PRODUCERS_PER_PAGE = 100

MAX_COUNTED = 10_000
"""Chunks that a page counts."""

POLL_SECONDS = 2.0
"""Time between two requests of the live tail under WSGI, where a request cannot wait for new data."""


@dataclass(frozen=True)
class MessagePage:
    """A page of messages, with positions for links to the pages around it."""

    messages: Sequence[DisplayedMessage]
    start: int
    end: int
    tail: int
    is_first: bool

    @property
    def is_last(self) -> bool:
        """Whether these messages are the last ones of the stream."""
        return self.end >= self.tail


class DetailViews(SignedLinkView):
    """Pages that only read."""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a stream. Pages that change it have URLs of their own."""
        return self._detail_page(request, object_id)

    @of_row("view")
    def _detail_page(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        return self.stream_page(request, stream)

    def stream_page(self, request: HttpRequest, stream: Stream, append_form: AppendForm | None = None) -> HttpResponse:
        """Return a stream's page. `append_form`: a form with errors to show again."""
        state = State.of(stream)
        info = self.info(stream)
        page = None if info is None else self._message_page(request, info)
        may_append = state is State.OPEN and self.may(request, "change", stream)
        forks = self._visible_forks(request, stream)
        producers = list(self._producers(stream)[: MAX_ROWS_LISTED + 1])
        return self.render(
            request,
            "stream",
            str(stream),
            stream=stream,
            original=stream,
            state=state,
            kind=Kind.of(stream.content_type),
            source=self._visible_source(request, stream),
            own_bytes=stream.tail_position - (stream.fork_position or 0),
            fork_offset=None if stream.fork_position is None else stream.offset_at(stream.fork_position),
            chunks=self._count_chunks(stream),
            max_counted=MAX_COUNTED,
            page=page,
            page_messages=PAGE_MESSAGES,
            forks=forks[:MAX_ROWS_LISTED],
            more_forks=len(forks) > MAX_ROWS_LISTED,
            producers=producers[:MAX_ROWS_LISTED],
            more_producers=len(producers) > MAX_ROWS_LISTED,
            follows=page is not None and page.is_last and state is State.OPEN,
            poll_seconds=0 if isinstance(request, ASGIRequest) else POLL_SECONDS,
            append_form=self._append_form(append_form or AppendForm(stream.content_type)) if may_append else None,
            may_close=may_append,
            may_keep=state.is_alive and self.may(request, "change", stream),
            kept=describe(stream.retention),
            may_sign=state.is_alive and self.may(request, "sign", stream),
            public_url=self.public_url(request, stream) if state.is_alive else "",
            may_fork=state.is_alive and self.may(request, "add", stream),
            may_delete=state is not State.KEPT and self.may(request, "delete", stream),
        )

    def _visible_forks(self, request: HttpRequest, stream: Stream) -> list[Stream]:
        """Return the latest forks that a user may see, and one more than the page lists, if it exists."""
        candidates = (
            self.get_queryset(request).filter(source=stream).order_by("-pk").defer("lineage")[:MAX_FORKS_CHECKED]
        )
        visible = (fork for fork in candidates if self.may(request, "view", fork))
        return [*islice(visible, MAX_ROWS_LISTED + 1)]

    def _visible_source(self, request: HttpRequest, stream: Stream) -> Stream | None:
        """Return the source of a fork, if the user may see it."""
        if stream.source_id is None:
            return None
        return self.visible(request, [stream.source_id]).get(stream.source_id)

    def _count_chunks(self, stream: Stream) -> int:
        """Return the number of a stream's chunks, at most `MAX_COUNTED`."""
        tables = (Chunk.objects.using(self.alias), staged_rows.chunks(self.alias))
        return min(sum(rows.filter(stream=stream).values("pk")[:MAX_COUNTED].count() for rows in tables), MAX_COUNTED)

    def _append_form(self, form: AppendForm) -> Any:
        return self.admin_form(form, [(_("Append"), {"fields": ["text", "file", "close"]})])

    def info(self, stream: Stream) -> StreamInfo | None:
        """Return the current state of a stream, or None if it cannot be read any more."""
        return log_reader.find_ids([stream.pk], self.alias).get(stream.pk)

    def _message_page(self, request: HttpRequest, info: StreamInfo) -> MessagePage:
        """Return the requested page of messages, or the last one."""
        parameters = request.GET
        page_messages: list[Message] = []
        if parameters.get("from"):
            page_messages = self.messages_after(info, position(parameters["from"], info, self.alias))
        elif parameters.get("to"):
            page_messages = self.messages_before(info, position(parameters["to"], info, self.alias))
        return message_page(info, page_messages or self.messages_before(info, info.tail), self.alias)

    def messages_after(self, info: StreamInfo, start: int) -> list[Message]:
        """Return about one page of messages that begin at a position."""
        page_messages = browsing.after(info, start, limit=PAGE_BYTES, count=PAGE_MESSAGES, using=self.alias)
        return browsing.whole(info, page_messages, self.alias)

    def messages_before(self, info: StreamInfo, end: int) -> list[Message]:
        """Return about one page of messages that end at a position."""
        page_messages = browsing.before(info, end, limit=PAGE_BYTES, count=PAGE_MESSAGES, using=self.alias)
        return browsing.whole(info, page_messages, self.alias)

    @of_row("view")
    def message_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """Show one message, up to a size that browsers can display."""
        info, message = self._message(request, stream)
        (whole,) = browsing.whole(info, [message], self.alias)
        shown = display(whole, lineage.around(info, self.alias, whole.start, whole.end), PAGE_LIMIT)
        return self.render(
            request, "message", str(stream), stream=stream, original=stream, message=shown, here=_("Message")
        )

    @of_row("view")
    def download_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """Send one whole message as a file. Browsers must not display it, whatever its content type is."""
        _info, message = self._message(request, stream)
        name = f"stream-{stream.pk}-{message.end}.{_SUFFIXES[Kind.of(stream.content_type)]}"
        return HttpResponse(
            message.data,
            content_type=content.DEFAULT_CONTENT_TYPE,
            headers={
                "Content-Disposition": f'attachment; filename="{name}"',
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "sandbox",
            },
        )

    def _message(self, request: HttpRequest, stream: Stream) -> tuple[StreamInfo, Message]:
        info = self.info(stream)
        if info is not None:
            start = position(request.GET.get("from", ""), info, self.alias)
            for message in browsing.after(info, start, limit=1, count=1, using=self.alias):
                return info, message
        raise Http404(_("There is no message at this offset."))

    def _producers(self, stream: Stream) -> QuerySet[Producer]:
        """Return the producers of a stream in the order of their ids, from the database that takes writes."""
        return Producer.objects.using(self.alias).filter(stream=stream).order_by("producer_id")

    @of_row("view")
    def producers_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """List the producers of a stream in the order of their ids, page by page."""
        rows = self._producers(stream)
        after = request.GET.get("after", "")
        if after and "\0" not in after:
            rows = rows.filter(producer_id__gt=after)
        producers = list(rows[: PRODUCERS_PER_PAGE + 1])
        more = len(producers) > PRODUCERS_PER_PAGE
        producers = producers[:PRODUCERS_PER_PAGE]
        return self.render(
            request,
            "producers",
            str(stream),
            here=_("Producers"),
            stream=stream,
            original=stream,
            producers=producers,
            is_first=not after,
            next_after=producers[-1].producer_id if more else None,
        )


_SUFFIXES = {Kind.JSON: "json", Kind.TEXT: "txt", Kind.BINARY: "bin"}


def message_page(info: StreamInfo, page_messages: Sequence[Message], using: str) -> MessagePage:
    """Return a page of messages for display."""
    if page_messages:
        info = lineage.around(info, using, page_messages[0].start, page_messages[-1].end)
    shown = [display(message, info, LIST_LIMIT) for message in page_messages]
    start = page_messages[0].start if page_messages else info.first_position
    end = page_messages[-1].end if page_messages else info.tail
    return MessagePage(shown, start, end, info.tail, start <= info.first_position)


def position(token: str, info: StreamInfo, using: str) -> int:
    """Return the position of an offset, or of a plain number.

    Raises:
        Http404: the text is neither, or the offset belongs to another stream.
    """
    if token.isdecimal() and token.isascii() and len(token) <= 16:
        return int(token)
    try:
        return lineage.locate(info, offsets.decode(token), using)[1]
    except (InvalidOffset, OffsetGone) as error:
        raise Http404(str(error)) from error
