"""What a stream remembers of an idempotent producer."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..protocol.headers import MAX_NAME_LENGTH
from .fields import ExactCharField
from .stream import Stream


class Producer(models.Model):
    """A producer's epoch and last sequence number on one stream (specification, section 5.2.1).

    Written in the transaction of the append that it belongs to, and kept as long as the stream.
    """

    stream = models.ForeignKey(
        Stream, verbose_name=_("stream"), on_delete=models.CASCADE, related_name="producers", db_index=False
    )
    producer_id = ExactCharField(_("producer id"), max_length=MAX_NAME_LENGTH)
    epoch = models.PositiveBigIntegerField(_("epoch"))
    seq = models.BigIntegerField(_("sequence number"), help_text=_("The last one accepted; -1 before the first."))
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now)

    class Meta:
        verbose_name = _("producer")
        verbose_name_plural = _("producers")
        constraints = [models.UniqueConstraint(fields=["stream", "producer_id"], name="producer_stream_id")]

    def __str__(self) -> str:
        return f"{self.producer_id} ({self.epoch}, {self.seq})"
