"""The metadata of streams: one row for each stream, which a writing transaction locks."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.checks import CheckMessage
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .. import clock
from ..protocol import arguments, content, listings, paths, producers
from .async_methods import AsyncStreamMethods
from .fields import ExactCharField, InstantField
from .guard import GuardedQuerySet, refuse
from .hinge import api
from .natural_keys import StreamKey, find_by_path, natural_key

if TYPE_CHECKING:
    from .hinge import ListingPage

_EXPECTED_WARNINGS = frozenset(
    {
        "models.W037",  # MySQL makes the indexes without their conditions
        "mysql.W003",  # MySQL can index paths of this length
    }
)


class LinkState(IntEnum):
    """How a stream is linked to subscriptions. A stream without a link has no value, and its appends pay nothing."""

    SEEN = 1
    """Linked, without new data."""
    UNSEEN = 2
    """Linked, with data that no delivery has looked at."""


class StreamQuerySet(GuardedQuerySet["Stream"]):
    """Streams by their state. Its methods change streams by the rules of the protocol only."""

    def alive(self, now: datetime | None = None) -> StreamQuerySet:
        """Return the streams that can be read: neither deleted nor expired."""
        return self.filter(path__isnull=False, deleted_at__isnull=True).exclude(deadline__lte=now or clock.now())

    def expired(self, now: datetime | None = None) -> StreamQuerySet:
        """Return the expired streams whose rows still exist."""
        return self.filter(deleted_at__isnull=True, deadline__lte=now or clock.now())

    def purgeable(self) -> StreamQuerySet:
        """Return the removed streams: they have no path any more, and their rows wait for the purge."""
        return self.filter(path__isnull=True)

    def with_prefix(self, prefix: str) -> StreamQuerySet:
        """Return the streams whose paths begin with a text, by the index of the paths.

        `path__startswith` ignores case on SQLite, and uses no index on some databases.
        """
        end = listings.end_of_prefix(prefix)
        streams = self.filter(path__gte=prefix) if prefix else self.filter(path__isnull=False)
        return streams if end is None else streams.filter(path__lt=end)

    def get_by_natural_key(self, key: str | None) -> Stream:
        """Return the stream that a fixture names by its path, in any state."""
        stream: Stream = find_by_path(self, key)
        return stream

    def listing(self, prefix: str = "", *, pattern: str = "", cursor: str = "", limit: int = 100) -> ListingPage:
        """Return a page of the streams that can be read, in the order of their paths. It ignores filters.

        Args:
            prefix: text with which the paths begin, such as `chat/`.
            pattern: a pattern that they match, such as `chat/*/typing`. `*` is one segment, `**` any number.
            cursor: the cursor of the last page.
            limit: the largest number of streams, from 1 to 1000. With a pattern a page may have fewer, or none,
                although more pages follow.

        Returns:
            The streams (`path`, `content_type`, `next_offset`, `size`, `closed`, `ttl`, `expires_at`, `created_at`,
            `appended_at`), and the cursor of the next page, or None.

        Raises:
            InvalidParameter, InvalidPath: an argument is invalid.
        """
        result: ListingPage = api().listing(self._write_alias(), prefix, pattern, cursor, limit)
        return result

    async def alisting(self, prefix: str = "", **options: Any) -> ListingPage:
        """The same as `listing`."""
        return await sync_to_async(self.listing)(prefix, **options)

    def create(self, **options: Any) -> Stream:
        """Create a stream and return it.

        Args:
            path: path of the stream, relative to the root of the streams.
            content_type: content type of the stream, by default `application/octet-stream`.
            ttl: seconds without appends and reads after which the stream expires.
            expires_at: time at which the stream expires, instead of `ttl`.
            closed: whether to create the stream closed.
            data: a first message.

        Raises:
            StreamExists: there is a stream at the path already. See `ensure`.
            InvalidPath, InvalidHeader, InvalidJSON, PayloadTooLarge.
        """
        if "source" in options:  # `stream.forks.create()` passes it
            refuse(self.model, "create", "fork")
        stream: Stream = api().create(self, self._write_alias(), **options)
        return stream

    def ensure(self, path: str, **options: Any) -> tuple[Stream, bool]:
        """Return the stream at a path, and whether this call created it. For the options see `create`.

        Raises:
            StreamExists: the stream at the path has another content type, TTL, expiry or closure.
        """
        result: tuple[Stream, bool] = api().ensure(self, self._write_alias(), path, **options)
        return result

    async def acreate(self, **options: Any) -> Stream:
        """The same as `create`."""
        return await sync_to_async(self.create)(**options)

    async def aensure(self, path: str, **options: Any) -> tuple[Stream, bool]:
        """The same as `ensure`."""
        return await sync_to_async(self.ensure)(path, **options)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete streams by the protocol's rules, all or none. Readers learn of it, and forks keep their data.

        Rows of the project's own models that refer to them follow their `on_delete`.

        Raises:
            ProtectedError, RestrictedError: such a row forbids the deletion. Nothing was deleted.
            TypeError: the query does not yield streams, has a slice, or combines queries.
        """
        if self._fields is not None or self.query.is_sliced or self.query.combinator:  # type: ignore[attr-defined]
            raise TypeError(
                "delete() is refused after values(), values_list(), dates(), union() and slices. Call it on a query "
                "for streams, such as Stream.objects.filter(pk__in=...).delete()."
            )
        result: tuple[int, dict[str, int]] = api().delete_all(self, self._write_alias())
        return result

    def _write_alias(self) -> str:
        """Return the alias that `using` names, or else the database to which the router sends writes."""
        self._for_write = True
        return self.db

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


class Stream(AsyncStreamMethods):
    """An append-only stream at a path (specification, section 4).

    A stream without forks is removed when it is deleted or expires. Its path becomes null, so that a new stream can use
    the path at once. Housekeeping purges its rows later. A stream with forks is soft-deleted: `deleted_at` is set,
    the path stays taken, and the data is kept for the forks (section 4.2).
    """

    id = StreamKey(verbose_name="ID", primary_key=True, auto_created=True)
    path = ExactCharField(_("path"), max_length=paths.MAX_PATH_LENGTH, unique=True, null=True, editable=False)
    content_type = models.CharField(
        _("content type"), max_length=content.MAX_CONTENT_TYPE_LENGTH, default=content.DEFAULT_CONTENT_TYPE
    )
    generation = models.PositiveBigIntegerField(
        _("generation"), default=0, editable=False, help_text="What its offsets begin with. See `protocol.offsets`."
    )
    tail_position = models.PositiveBigIntegerField(
        _("tail"), db_column="tail", default=0, help_text="Position after the last byte, as the data is stored."
    )
    first_position = models.PositiveBigIntegerField(
        _("first retained position"), default=0, help_text="Data before this position was trimmed."
    )
    closed = models.BooleanField(_("closed"), default=False)
    closed_by = models.CharField(
        _("closed by"),
        max_length=producers.MAX_STORED_NAME_LENGTH + 39,
        default="",
        blank=True,
        help_text="Epoch, sequence number and id of the producer whose request closed the stream.",
    )
    last_seq = ExactCharField(_("last Stream-Seq"), max_length=arguments.MAX_NAME_LENGTH, null=True, blank=True)
    ttl = models.PositiveBigIntegerField(_("TTL"), null=True, blank=True, help_text="Seconds of idle life.")
    expires_at = InstantField(_("expires at"), null=True, blank=True, help_text="As the creator asked.")
    deadline = InstantField(
        _("deadline"), null=True, blank=True, help_text="When the stream ends, from its TTL or its expiry."
    )
    source = models.ForeignKey(
        "self",
        verbose_name=_("forked from"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="forks",
        db_index=False,  # Meta has a partial index
    )
    fork_position = models.PositiveBigIntegerField(_("fork position"), null=True, blank=True)
    inherited_from = models.PositiveBigIntegerField(
        _("inherited from"),
        null=True,
        blank=True,
        editable=False,
        help_text="The source's first retained position when the fork was made. Sources keep data from here.",
    )
    lineage = models.JSONField(
        _("lineage"),
        null=True,
        blank=True,
        editable=False,
        help_text="The ranges of other streams that a fork begins with, in order (see store.read.lineage).",
    )
    deleted_at = InstantField(_("deleted at"), null=True, blank=True)
    link_state = models.PositiveSmallIntegerField(
        _("link state"),
        null=True,
        blank=True,
        editable=False,
        help_text="Whether subscriptions follow the stream, and whether it has data that they were not told of.",
    )
    version_before_look = models.BigIntegerField(
        _("version before the look"),
        null=True,
        editable=False,
        help_text="On PostgreSQL, the row version that a look has changed last (see store.write.row_cache).",
    )
    version_after_look = models.BigIntegerField(
        _("version after the look"), null=True, editable=False, help_text="The row version that this look has made."
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    appended_at = models.DateTimeField(_("last append at"), null=True, blank=True)

    objects = StreamQuerySet.as_manager()

    instead = {
        "add": "Call Stream.objects.create() or ensure().",
        "fork": "Call stream.fork().",
        "change": "Call append(), close(), set_lifetime(), retain() or trim() of each stream. "
        "Other fields cannot be changed.",
        "delete": "Call Stream.delete() or Stream.objects.filter(...).delete().",
    }

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("stream")
        verbose_name_plural = _("streams")
        # Most streams have no value here. Partial indexes leave them out, which makes creates faster.
        indexes = [
            models.Index(fields=["deadline"], name="stream_deadline", condition=Q(deadline__isnull=False)),
            models.Index(fields=["deleted_at"], name="stream_deleted_at", condition=Q(deleted_at__isnull=False)),
            models.Index(fields=["source"], name="stream_source", condition=Q(source__isnull=False)),
            models.Index(
                fields=["link_state"], name="stream_link_state", condition=Q(link_state=LinkState.UNSEEN.value)
            ),
        ]

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        """Check the model, without Django's warnings about MySQL that do not matter here."""
        return [message for message in super().check(**kwargs) if message.id not in _EXPECTED_WARNINGS]

    def __str__(self) -> str:
        return self.path if self.path is not None else f"({self.pk}, removed)"

    def natural_key(self) -> tuple[str]:
        """Return the path, by which fixtures name the stream. Numbers are different in another database."""
        return natural_key(self.path)

    @property
    def closing_request(self) -> str:
        """`closed_by`, with the producer's name instead of its stored id."""
        return self.closed_by.replace(producers.SERVER_MARK, "", 1)

    @property
    def next_offset(self) -> str:
        """The offset after the last byte (`Stream-Next-Offset`)."""
        return self.offset_at(self.tail_position)

    def offset_at(self, position: int) -> str:
        """Return the offset of a position in bytes."""
        offset: str = api().offset_at(self, position)
        return offset
