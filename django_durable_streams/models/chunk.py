"""A stream's data: one row for what one commit appended, merged with its neighbours later."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .guard import GuardedModel, GuardedQuerySet
from .stream import Stream


class AbstractChunk(GuardedModel):
    """A range of a stream's bytes, stored as they go on the wire, and where the appends inside it end."""

    start = models.PositiveBigIntegerField(_("start"))
    end = models.PositiveBigIntegerField(_("end"))
    data = models.BinaryField(_("data"))
    ends = models.BinaryField(
        _("ends"),
        default=b"",
        help_text=_("Where each append ends, from the chunk's start: 32-bit little-endian. Empty: one append."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    stream_id: int

    instead = dict.fromkeys(("add", "change"), "Call Stream.append() to add data; what is there never changes.") | {
        "delete": "Call Stream.delete(): data goes with its stream."
    }

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.stream_id}: {self.start}-{self.end}"


class ChunkQuerySet(GuardedQuerySet["Chunk"]):
    """Chunks, to be read."""


class StagedChunkQuerySet(GuardedQuerySet["StagedChunk"]):
    """Recent chunks, to be read."""


class Chunk(AbstractChunk):
    """A chunk where it stays, until it is merged with others."""

    stream = models.ForeignKey(
        Stream,
        verbose_name=_("stream"),
        on_delete=models.CASCADE,
        related_name="chunks",
        db_index=False,  # the unique constraint below begins with it
    )

    objects = ChunkQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("chunk")
        verbose_name_plural = _("chunks")
        # By its end: the first chunk that a reader at an offset needs is the first whose end lies past it.
        constraints = [models.UniqueConstraint(fields=["stream", "end"], name="chunk_stream_end")]


class StagedChunk(AbstractChunk):
    """A chunk that a busy process has appended, until it is gathered with those of its block (`store.recent`).

    Only on SQLite, where what a commit costs is the pages that it changes. The index of all chunks has a page for each
    stream that has many; that of a block has few for all streams together.
    """

    BLOCK_BITS = 12
    """A block is 4,096 ids in a row."""

    MAX_BYTES = 512
    """Data of a recent chunk. What a larger one takes is much beside its index."""

    block = models.BigIntegerField(_("block"))
    stream = models.ForeignKey(
        Stream,
        verbose_name=_("stream"),
        on_delete=models.DO_NOTHING,  # `store.removal` sees to it
        related_name="recent_chunks",
        db_constraint=False,  # to look for them without a block would be to read them all
        db_index=False,
    )

    objects = StagedChunkQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("recent chunk")
        verbose_name_plural = _("recent chunks")
        constraints = [models.UniqueConstraint(fields=["block", "stream", "end"], name="recent_block_stream_end")]
