"""The keys that sign webhooks (specification, section 6.5). `subscriptions.signing_keys` writes and uses them."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .fields import InstantField
from .guard import GuardedModel, GuardedQuerySet


class SigningKeyQuerySet(GuardedQuerySet["SigningKey"]):
    """Signing keys, for reading."""


class SigningKey(GuardedModel):
    """An Ed25519 key. The one with the lowest number that is not retired yet signs.

    `number` counts the keys of the database, so that of two processes that make a key at the same time one succeeds.
    """

    number = models.PositiveIntegerField(_("number"), unique=True)
    kid = models.CharField(_("key id"), max_length=64, unique=True)
    public_key = models.CharField(_("public key"), max_length=64, help_text="The parameter x of its JWK.")
    private_key = models.TextField(
        _("private key"), help_text="Encrypted, if the setting WEBHOOK_KEY_SECRET was set when the key was made."
    )
    created_at = InstantField(_("created at"))
    retired_at = InstantField(_("retired at"), null=True, help_text="When it stops to sign.")

    objects = SigningKeyQuerySet.as_manager()

    instead = {
        "add": "Run `manage.py streams_rotate_key`.",
        "change": "Run `manage.py streams_rotate_key`.",
        "delete": "Run `manage.py streams_rotate_key --revoke`.",
    }

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("signing key")
        verbose_name_plural = _("signing keys")
        default_permissions = ()

    def __str__(self) -> str:
        return self.kid
