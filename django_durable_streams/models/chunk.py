"""The data of streams: one row for each stream and commit. Compaction merges neighbouring rows later."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .guard import GuardedModel, GuardedQuerySet
from .stream import Stream


class AbstractChunk(GuardedModel):
    """A range of a stream's bytes, stored as they go on the wire, and the ends of the appends inside.

    In the tables `data` is the last column. SQLite reads all pages of a large value to find the columns after it: a
    delete from the index by stream and end would read the data.
    """

    start = models.PositiveBigIntegerField(_("start"))
    end = models.PositiveBigIntegerField(_("end"))
    ends = models.BinaryField(
        _("ends"),
        default=b"",
        help_text="Where each append ends, from the chunk's start: 32-bit little-endian. Empty: one append.",
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    data = models.BinaryField(_("data"))
    stream_id: int

    instead = dict.fromkeys(("add", "change"), "Call Stream.append() to add data. Stored data never changes.") | {
        "delete": "Call Stream.delete(): data is deleted with its stream."
    }

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.stream_id}: {self.start}-{self.end}"


class ChunkQuerySet(GuardedQuerySet["Chunk"]):
    """Chunks, for reading."""


class StagedChunkQuerySet(GuardedQuerySet["StagedChunk"]):
    """Staged chunks, for reading."""


class Chunk(AbstractChunk):
    """A chunk in its final table, until compaction merges it with others."""

    stream = models.ForeignKey(
        Stream,
        verbose_name=_("stream"),
        on_delete=models.CASCADE,
        related_name="chunks",
        db_index=False,  # the unique constraint below begins with this column
    )

    objects = ChunkQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("chunk")
        verbose_name_plural = _("chunks")
        # By its end: the first chunk that a reader at an offset needs is the first whose end lies past it.
        constraints = [models.UniqueConstraint(fields=["stream", "end"], name="chunk_stream_end")]


class StagedChunk(AbstractChunk):
    """A small chunk of a busy process on SQLite, until a flush moves it to `Chunk` (`store.upkeep.staged_chunks`).

    The cost of a commit on SQLite is the pages that it changes. The index of all chunks has a page for each stream with
    many chunks. The index of a block has few pages for all streams together.
    """

    BLOCK_BITS = 12
    """A block has 4,096 consecutive ids."""

    MAX_BYTES = 512
    """Largest data of a staged chunk. The data of a larger chunk costs more than its index entry."""

    block = models.BigIntegerField(_("block"))
    stream = models.ForeignKey(
        Stream,
        verbose_name=_("stream"),
        on_delete=models.DO_NOTHING,  # `store.upkeep.removal` deletes the rows
        related_name="staged_chunks",
        db_constraint=False,  # a search without the block would read the whole table
        db_index=False,
    )

    objects = StagedChunkQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("staged chunk")
        verbose_name_plural = _("staged chunks")
        constraints = [models.UniqueConstraint(fields=["block", "stream", "end"], name="staged_block_stream_end")]
