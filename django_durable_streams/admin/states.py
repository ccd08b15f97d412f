"""The state of a stream at a moment and the kind of its data, for badges and as conditions of queries."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q, TextChoices
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import clock
from ..models import Stream
from ..protocol import content


class State(TextChoices):
    """The state of a stream."""

    OPEN = "open", _("Open")
    CLOSED = "closed", _("Closed")
    EXPIRED = "expired", _("Expired")
    KEPT = "deleted", _("Deleted, has forks")

    @classmethod
    def of(cls, stream: Stream, now: datetime | None = None) -> State:
        """Return the state of a stream at a moment: now, by default."""
        if stream.deleted_at is not None:
            return cls.KEPT
        if stream.deadline is not None and clock.from_project(stream.deadline) <= (now or clock.now()):
            return cls.EXPIRED
        return cls.CLOSED if stream.closed else cls.OPEN

    def condition(self, now: datetime | None = None) -> Q:
        """Return the condition for streams in this state."""
        if self is State.KEPT:
            return Q(deleted_at__isnull=False)
        over = Q(deadline__lte=now or clock.now())
        if self is State.EXPIRED:
            return Q(deleted_at__isnull=True) & over
        alive = Q(deleted_at__isnull=True) & (Q(deadline__isnull=True) | ~over)
        return alive & Q(closed=self is State.CLOSED)

    @property
    def is_alive(self) -> bool:
        """Whether the stream can be read."""
        return self in (State.OPEN, State.CLOSED)

    def badge(self) -> SafeString:
        """Return the state as HTML, with its name as text."""
        return format_html('<span class="ds-badge ds-badge-{}">{}</span>', self.value, self.label)


class Kind(TextChoices):
    """How the messages of a stream are shown."""

    JSON = "json", _("JSON")
    TEXT = "text", _("Text")
    BINARY = "binary", _("Binary")

    @classmethod
    def of(cls, content_type: str) -> Kind:
        """Return the kind of a content type."""
        if content.is_json(content_type):
            return cls.JSON
        return cls.TEXT if content.is_text(content_type) else cls.BINARY

    def condition(self) -> Q:
        """Return the condition for streams of this kind. Content types may have any case, and parameters."""
        json = Q(content_type__iexact=content.JSON_CONTENT_TYPE)
        for separator in "; \t":
            json |= Q(content_type__istartswith=content.JSON_CONTENT_TYPE + separator)
        text = Q(content_type__istartswith="text/")
        match self:
            case Kind.JSON:
                return json
            case Kind.TEXT:
                return text
            case _:
                return ~(json | text)
