"""What of a stream is kept, for the streams that do not keep everything."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..protocol.retention import RetentionRules
from .guard import GuardedModel, GuardedQuerySet
from .stream import Stream


class RetentionQuerySet(GuardedQuerySet["Retention"]):
    """Retention of streams, for reading."""


class Retention(GuardedModel):
    """The retention of one stream: rules of its own, the marks by which rules are applied, and the last trim.

    Streams with the rules of the settings have a row only if a rule needs marks or notes, or after a trim. The row is
    not a part of the stream's row, so housekeeping can write it without a lock on the stream.
    """

    stream = models.OneToOneField(
        Stream,
        verbose_name=_("stream"),
        primary_key=True,
        on_delete=models.CASCADE,
        related_name="retention_row",
    )
    is_explicit = models.BooleanField(
        _("explicit"), default=False, help_text="Whether the stream has rules of its own, instead of the setting's."
    )
    age = models.PositiveBigIntegerField(_("age"), null=True, blank=True, help_text="In seconds.")
    max_bytes = models.PositiveBigIntegerField(_("bytes"), null=True, blank=True)
    max_messages = models.PositiveBigIntegerField(_("messages"), null=True, blank=True)
    marks = models.JSONField(
        _("marks"),
        default=list,
        help_text="Positions, when the tail was there at the latest, and the messages before (see store.upkeep).",
    )
    trim_position = models.PositiveBigIntegerField(
        _("trim position"), null=True, blank=True, help_text="Set while trimmed data may still be stored."
    )

    key_compaction = models.JSONField(
        _("key compaction"),
        null=True,
        blank=True,
        editable=False,
        help_text="How far messages with the same key were compared (see store.upkeep.key_compaction).",
    )

    objects = RetentionQuerySet.as_manager()

    instead = dict.fromkeys(("add", "change", "delete"), "Call Stream.retain(), reset_retention() or trim().")

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("retention")
        verbose_name_plural = _("retention")
        default_permissions = ()
        indexes = [
            models.Index(fields=["stream"], name="retention_trimmed", condition=Q(trim_position__isnull=False)),
            models.Index(fields=["is_explicit", "stream"], name="retention_explicit", condition=Q(is_explicit=True)),
        ]

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        """Check the model, without Django's warning that MySQL makes indexes without their conditions."""
        return [message for message in super().check(**kwargs) if message.id != "models.W037"]

    @property
    def rules(self) -> RetentionRules:
        """The rules of the stream, if they are explicit."""
        return RetentionRules(self.age, self.max_bytes, self.max_messages)

    def __str__(self) -> str:
        return f"{self.stream_id}: {self.rules}"
