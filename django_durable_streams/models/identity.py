"""Which database this is, whatever its name, its host, and the project that uses it."""

from __future__ import annotations

import secrets

from django.db import models
from django.utils.translation import gettext_lazy as _


def new_identity() -> str:
    """Return 128 random bits in hexadecimal."""
    return secrets.token_hex(16)


class DatabaseIdentity(models.Model):
    """The one row that tells a database from every other, also from those that have its name (see `store.identity`).

    A copy has the identity of its original, until somebody deletes the row there: then it is given another one.
    """

    THE_ONE = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=THE_ONE, editable=False)
    value = models.CharField(_("value"), max_length=32, default=new_identity, editable=False)

    class Meta:
        verbose_name = _("database identity")
        verbose_name_plural = _("database identities")
        default_permissions = ()

    def __str__(self) -> str:
        return self.value
