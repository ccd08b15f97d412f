"""Subscriptions: durable cursors that wake workers when streams have something for them (specification, section 6).

A link is the cursor of one subscription on one stream. Knows neither requests nor deliveries.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..protocol import arguments, paths, producers
from .fields import ExactCharField, InstantField
from .guard import GuardedModel, GuardedQuerySet
from .stream import Stream


class SubscriptionQuerySet(GuardedQuerySet["Subscription"]):
    """Subscriptions, for reading."""


class SubscriptionLinkQuerySet(GuardedQuerySet["SubscriptionLink"]):
    """Links, for reading."""


class Subscription(GuardedModel):
    """A subscription: which streams it follows, how it wakes workers, and the state of its present wake.

    A wake is in flight while `wake_id` is set. `generation` grows with each wake, and fences requests of earlier ones.
    A worker holds the lease until `lease_expires_at`. `due_at` says when the delivery has to look at the subscription
    again: for a new wake, another attempt, or the end of the lease.

    While an operator has paused it, no wake begins, nothing can be claimed, and its links go on to collect.

    The subscription of a consumer has no wakes. Its workers hold a lease for each link, and a replay is its `holder`.
    """

    class Kind(models.TextChoices):
        """How a subscription wakes its workers."""

        WEBHOOK = "webhook", _("webhook")
        PULL_WAKE = "pull-wake", _("pull-wake")
        CONSUMER = "consumer", _("consumer")

    name = ExactCharField(
        _("id"),
        max_length=arguments.MAX_NAME_LENGTH,
        unique=True,
        null=True,
        help_text="Null once the subscription is deleted: its links are deleted later.",
    )
    kind = models.CharField(_("type"), max_length=16, choices=Kind.choices)
    pattern = models.CharField(_("pattern"), max_length=paths.MAX_PATH_LENGTH, default="", blank=True)
    webhook_url = models.CharField(_("webhook URL"), max_length=2048, default="", blank=True)
    receiver = models.CharField(
        _("receiver"),
        max_length=272,
        default="",
        blank=True,
        help_text="Host and port of the webhook URL. All subscriptions with them share one limit.",
    )
    wake_stream = models.CharField(_("wake stream"), max_length=paths.MAX_PATH_LENGTH, default="", blank=True)
    lease_ms = models.PositiveIntegerField(_("lease"), help_text="In milliseconds.")
    description = models.TextField(_("description"), default="", blank=True)
    config_hash = models.CharField(_("configuration hash"), max_length=64)
    base_url = models.CharField(
        _("base URL"),
        max_length=2048,
        default="",
        help_text="The root of the streams as the creating client saw it, for the URLs in webhooks.",
    )
    from_beginning = models.BooleanField(
        _("from the beginning"),
        default=False,
        help_text="Whether streams that are older than the subscription are read from their beginning.",
    )
    is_paused = models.BooleanField(_("paused"), default=False)
    generation = models.PositiveBigIntegerField(_("generation"), default=0)
    wake_id = models.CharField(_("wake"), max_length=40, default="", blank=True)
    holder = models.CharField(_("holder"), max_length=arguments.MAX_NAME_LENGTH, default="", blank=True)
    notices = models.PositiveIntegerField(
        _("notices"), default=0, help_text="How often the present wake was written to the wake stream."
    )
    lease_expires_at = InstantField(_("lease expires at"), null=True, blank=True)
    failures = models.PositiveIntegerField(_("failed attempts"), default=0)
    last_error = models.TextField(_("last error"), default="", blank=True)
    next_attempt_at = InstantField(_("next attempt at"), null=True, blank=True)
    due_at = InstantField(_("due at"), null=True, blank=True)
    linked_through = models.BigIntegerField(
        _("linked through"),
        null=True,
        blank=True,
        help_text="While existing streams are linked: the id of the last stream that was compared with the pattern.",
    )
    offered_through = models.BigIntegerField(
        _("offered through"),
        default=0,
        help_text="The id of the last link that the last wake has offered. The next wake begins after it.",
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    objects = SubscriptionQuerySet.as_manager()

    instead = {
        "add": "Call subscriptions.create().",
        "change": "Call the functions of `django_durable_streams.subscriptions`.",
        "delete": "Call subscriptions.delete().",
    }

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("subscription")
        verbose_name_plural = _("subscriptions")
        indexes = [models.Index(fields=["due_at"], name="subscription_due_at", condition=Q(due_at__isnull=False))]

    def __str__(self) -> str:
        return f"({self.pk}, deleted)" if self.name is None else producers.producer_name(self.name)

    @property
    def is_idle(self) -> bool:
        """Whether pending work makes it due: it has wakes, none is in flight, and no attempt is scheduled."""
        has_wakes = self.kind != self.Kind.CONSUMER
        return has_wakes and not self.wake_id and self.due_at is None and not self.is_paused

    @property
    def status(self) -> str:
        """`failed` from a failed attempt until a successful one, `active` otherwise (section 6.3)."""
        return "failed" if self.last_error else "active"


class SubscriptionLink(GuardedModel):
    """The cursor of a subscription on one stream.

    `stream` is null while there is no stream at the path of an explicit link. `acked_position` is null until something
    was acknowledged: the subscription has then to read from the beginning.

    The fields from `holder` on belong to consumers (`subscriptions.consumers`). They have defaults in the database,
    because the transaction that creates a stream inserts its links without them.
    """

    subscription = models.ForeignKey(
        Subscription,
        verbose_name=_("subscription"),
        on_delete=models.DO_NOTHING,  # the links are deleted first, in portions
        related_name="links",
        db_index=False,  # the unique constraint begins with this column
        # A check at each insert would wait for transactions that change the subscription. The lock of the link rules
        # keeps the subscription in place.
        db_constraint=False,
    )
    path = ExactCharField(_("path"), max_length=paths.MAX_PATH_LENGTH)
    stream = models.ForeignKey(
        Stream,
        verbose_name=_("stream"),
        null=True,
        on_delete=models.DO_NOTHING,  # `store.upkeep.removal` unlinks purged streams
        related_name="subscription_links",
        db_constraint=False,
    )
    is_explicit = models.BooleanField(_("explicit"), default=False)
    is_glob = models.BooleanField(_("by pattern"), default=False)
    acked_position = models.PositiveBigIntegerField(_("acknowledged position"), null=True)
    is_pending = models.BooleanField(
        _("pending"), default=False, help_text="Whether the stream had data after the cursor when it was looked at."
    )
    holder = models.CharField(
        _("holder"), max_length=40, default="", db_default="", blank=True, help_text="The claim of a worker."
    )
    lease_expires_at = InstantField(_("lease expires at"), null=True, blank=True)
    failures = models.PositiveIntegerField(_("failed attempts"), default=0, db_default=0)
    next_attempt_at = InstantField(_("next attempt at"), null=True, blank=True)
    last_error = models.TextField(_("last error"), default="", db_default="", blank=True)
    is_stopped = models.BooleanField(
        _("stopped"), default=False, db_default=False, help_text="Whether a message failed, and nobody has resumed."
    )

    objects = SubscriptionLinkQuerySet.as_manager()

    instead = {
        "add": "Call subscriptions.add_streams().",
        "change": "Acknowledge by the subscription.",
        "delete": "Call subscriptions.remove_stream().",
    }

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("subscription link")
        verbose_name_plural = _("subscription links")
        constraints = [models.UniqueConstraint(fields=["subscription", "path"], name="subscription_link_path")]
        indexes = [
            # MySQL has no conditions of indexes, so the columns of the conditions are in them, too.
            models.Index(
                fields=["subscription", "is_pending", "id"],
                name="subscription_link_pending",
                condition=Q(is_pending=True),
            ),
            models.Index(
                fields=["is_explicit", "path"], name="subscription_link_explicit", condition=Q(is_explicit=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subscription_id}: {self.path}"
