"""The form that sets cursors."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import TextChoices
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...protocol import offsets
from ...protocol.errors import DurableStreamsError
from ...protocol.globs import glob
from ...protocol.offsets import Offset, Sentinel


class Start(TextChoices):
    """Where reading begins after a reset."""

    BEGINNING = "beginning", gettext_lazy("The beginning: handle everything once more")
    NOW = "now", gettext_lazy("The present end: leave out everything that is pending")
    OFFSET = "offset", gettext_lazy("An offset of one stream")


class ResetForm(forms.Form):
    """Set the cursors of a subscription, or the one of a link.

    Args:
        of_link: whether the form is about one link.
    """

    required_css_class = "required"

    start = forms.ChoiceField(
        label=gettext_lazy("Go on from"),
        choices=Start.choices,
        widget=forms.RadioSelect,
    )
    offset = forms.CharField(
        label=gettext_lazy("Offset"),
        required=False,
        widget=forms.TextInput(attrs={"class": "vTextField", "spellcheck": "false"}),
        help_text=gettext_lazy("Everything after it is handled. Copy it from the page of the stream."),
    )
    pattern = forms.CharField(
        label=gettext_lazy("Streams"),
        required=False,
        widget=forms.TextInput(attrs={"class": "vTextField", "spellcheck": "false", "autocapitalize": "off"}),
        help_text=gettext_lazy(
            "Only streams that you may view, with paths like this pattern, such as orders/*. If empty: all streams."
        ),
    )

    def __init__(self, *args: Any, of_link: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if of_link:
            del self.fields["pattern"]

    def clean_pattern(self) -> str:
        pattern: str = self.cleaned_data["pattern"].strip("/")
        if pattern:
            try:
                glob(pattern)
            except DurableStreamsError as error:
                raise forms.ValidationError(error.detail) from error
        return pattern

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.cleaned_data.get("start") != Start.OFFSET:
            return cleaned
        try:
            offset = offsets.decode(self.cleaned_data.get("offset", "").strip())
        except DurableStreamsError:
            offset = Sentinel.NOW
        if isinstance(offset, Sentinel):
            self.add_error("offset", _("Copy an offset from one of the messages of the stream."))
        else:
            self.cleaned_data["position"] = offset
        return cleaned

    @property
    def chosen(self) -> Offset | Sentinel:
        """Where to begin, once the form is valid."""
        match self.cleaned_data["start"]:
            case Start.BEGINNING:
                return Sentinel.START
            case Start.NOW:
                return Sentinel.NOW
        position: Offset = self.cleaned_data["position"]
        return position
