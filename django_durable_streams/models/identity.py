"""The identity of the database, which depends on no name, host or project."""

from __future__ import annotations

import secrets
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _


def new_identity() -> str:
    """Return 128 random bits in hexadecimal."""
    return secrets.token_hex(16)


class DatabaseIdentity(models.Model):
    """The one row that distinguishes this database from all others but its copies (see `store.database_identity`).

    A copy has the identity of its original until `manage.py streams new-identity` gives it one of its own. Wake-up
    messages tell copies apart by their location (`store.database_location`).
    """

    THE_ONE = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=THE_ONE, editable=False)
    value = models.CharField(_("value"), max_length=32, default=new_identity, editable=False)
    link_rules_version = models.PositiveBigIntegerField(
        _("version of the link rules"),
        default=0,
        editable=False,
        help_text="Grows with each change of the rules by which new streams are linked to subscriptions.",
    )

    class Meta:
        verbose_name = _("database identity")
        verbose_name_plural = _("database identities")
        default_permissions = ()

    def __str__(self) -> str:
        return self.value

    def _save_table(self, raw: bool = False, *args: Any, **options: Any) -> bool:
        # A fixture has the row of another database, or an earlier one. It is left out: processes would take earlier
        # link rules for the current ones.
        return True if raw else super()._save_table(raw, *args, **options)  # type: ignore[misc]
