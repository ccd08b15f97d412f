"""The form for the lifetime and the retention of an existing stream, and how pages show rules of retention."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.admin import widgets
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..models import Stream
from ..protocol.retention import RetentionRules
from ..store.upkeep import retention
from .forms import LifetimeFields


def describe(rules: RetentionRules) -> str:
    """Return rules of retention as a text for people."""
    parts = []
    if rules.age is not None:
        parts.append(ngettext("the last second", "the last %(count)d seconds", rules.age) % {"count": rules.age})
    if rules.bytes is not None:
        parts.append(_("the last %s") % filesizeformat(rules.bytes))
    if rules.messages is not None:
        count = {"count": rules.messages}
        parts.append(ngettext("the last message", "the last %(count)d messages", rules.messages) % count)
    return ", ".join(parts) or _("all data")


def _number(label: Any, help_text: Any) -> forms.IntegerField:
    widget = widgets.AdminBigIntegerFieldWidget
    return forms.IntegerField(label=label, required=False, min_value=1, widget=widget, help_text=help_text)


class KeepForm(LifetimeFields):
    """How long a stream lives, and what is kept of it meanwhile."""

    has_own_rules = forms.BooleanField(
        label=gettext_lazy("Rules of its own"),
        required=False,
        help_text=gettext_lazy("Instead of those of the setting RETENTION. Without any number, all data is kept."),
    )
    age = _number(gettext_lazy("Age"), gettext_lazy("Seconds for which data is kept after it was appended."))
    bytes = _number(gettext_lazy("Bytes"), gettext_lazy("The newest bytes that are kept."))
    messages = _number(gettext_lazy("Messages"), gettext_lazy("The newest messages that are kept."))

    LIFETIME, RETENTION = ("ttl", "expires_at"), ("has_own_rules", *RetentionRules._fields)

    @staticmethod
    def initial_of(stream: Stream) -> dict[str, Any]:
        """Return what the form shows at first."""
        row = retention.row_of(stream.pk, stream._alias())
        own = row.rules if row is not None and row.is_explicit else None
        rules = {} if own is None else own._asdict()
        ttl = None if stream.ttl is None else str(stream.ttl)  # as it is entered: a number would count as a change
        return {"ttl": ttl, "expires_at": stream.expires_at, "has_own_rules": own is not None, **rules}

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        limits = [self.cleaned_data.get(name) for name in RetentionRules._fields]
        if not self.cleaned_data.get("has_own_rules") and any(limit is not None for limit in limits):
            self.add_error("has_own_rules", _("Choose this for rules of its own, or leave the numbers empty."))
        return cleaned

    def save(self, stream: Stream) -> list[str]:
        """Change the stream, in the caller's transaction, and return what was changed, for the history.

        Raises:
            DurableStreamsError: the stream is gone, or a value is refused.
        """
        cleaned, notes = self.cleaned_data, []
        if not set(self.LIFETIME).isdisjoint(self.changed_data):
            stream.set_lifetime(ttl=cleaned["ttl"], expires_at=cleaned["expires_at"])
            notes.append(_("Changed the lifetime."))
        if not set(self.RETENTION).isdisjoint(self.changed_data):
            if cleaned["has_own_rules"]:
                stream.retain(**{name: cleaned[name] for name in RetentionRules._fields})
            else:
                stream.reset_retention()
            notes.append(_("Changed the retention: %s.") % describe(stream.retention))
        return notes
