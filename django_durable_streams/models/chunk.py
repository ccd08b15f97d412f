"""A stream's data: one row for what one commit appended, merged with its neighbours later."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .stream import Stream


class Chunk(models.Model):
    """A range of a stream's bytes, stored as they go on the wire, and where the appends inside it end."""

    stream = models.ForeignKey(
        Stream,
        verbose_name=_("stream"),
        on_delete=models.CASCADE,
        related_name="chunks",
        db_index=False,  # the unique constraint below begins with it
    )
    start = models.PositiveBigIntegerField(_("start"))
    end = models.PositiveBigIntegerField(_("end"))
    data = models.BinaryField(_("data"))
    ends = models.BinaryField(
        _("ends"),
        default=b"",
        help_text=_("Where each append ends, from the chunk's start: 32-bit little-endian. Empty: one append."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("chunk")
        verbose_name_plural = _("chunks")
        # By its end: the first chunk that a reader at an offset needs is the first whose end lies past it.
        constraints = [models.UniqueConstraint(fields=["stream", "end"], name="chunk_stream_end")]

    def __str__(self) -> str:
        return f"{self.stream_id}: {self.start}-{self.end}"
