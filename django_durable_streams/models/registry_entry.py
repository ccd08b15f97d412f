"""Changes of streams that wait for their place in the registry (see `store.write.registry_entries`)."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .guard import GuardedModel, GuardedQuerySet


class RegistryEntryQuerySet(GuardedQuerySet["RegistryEntry"]):
    """Entries, for reading."""


class RegistryEntry(GuardedModel):
    """A change of a stream that the registry has not told yet. The entries of one path are in the order of their ids.

    The transaction that changes the stream inserts it, and the one that appends it to the registry deletes it.
    """

    message = models.TextField(_("message"), help_text="The message of the registry, as JSON.")

    objects = RegistryEntryQuerySet.as_manager()

    instead = dict.fromkeys(("add", "change", "delete"), "Create, close or delete a stream.")

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("registry entry")
        verbose_name_plural = _("registry entries")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.pk)
