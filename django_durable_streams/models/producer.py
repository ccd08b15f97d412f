"""The state of idempotent producers on their streams."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..protocol import producers
from .fields import ExactCharField
from .guard import GuardedModel, GuardedQuerySet
from .stream import Stream


class ProducerQuerySet(GuardedQuerySet["Producer"]):
    """Producers, for reading."""


class Producer(GuardedModel):
    """A producer's epoch and last sequence number on one stream (specification, section 5.2.1).

    It is written in the transaction of the producer's append, and deleted with the stream.
    """

    stream = models.ForeignKey(
        Stream, verbose_name=_("stream"), on_delete=models.CASCADE, related_name="producers", db_index=False
    )
    producer_id = ExactCharField(_("producer id"), max_length=producers.MAX_STORED_NAME_LENGTH)
    epoch = models.PositiveBigIntegerField(_("epoch"))
    seq = models.BigIntegerField(_("sequence number"), help_text="The last one accepted; -1 before the first.")
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now)

    objects = ProducerQuerySet.as_manager()

    instead = dict.fromkeys(
        ("add", "change", "delete"), "Call Stream.append(producer=...): an append writes the state of its producer."
    )

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("producer")
        verbose_name_plural = _("producers")
        constraints = [models.UniqueConstraint(fields=["stream", "producer_id"], name="producer_stream_id")]

    @property
    def name(self) -> str:
        """The name of the producer, as its clients or the Python code wrote it."""
        return producers.producer_name(self.producer_id)

    @property
    def is_of_server(self) -> bool:
        """Whether Python code has named the producer. A client's producer of the same name is another one."""
        return producers.is_server_producer(self.producer_id)

    def __str__(self) -> str:
        return f"{self.name} ({self.epoch}, {self.seq})"
