"""Forms that change streams. Their errors are those of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin import widgets
from django.http import QueryDict
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop

from .. import clock
from ..conf import config
from ..models import Stream
from ..protocol import content, headers, offsets, paths
from ..protocol.errors import (
    ContentTypeMismatch,
    DurableStreamsError,
    EmptyAppend,
    InvalidHeader,
    InvalidJSON,
    InvalidOffset,
    InvalidPath,
    OffsetOutOfRange,
    StreamExists,
)
from ..store.operations import Append, Create, Fork
from .states import Kind

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

SUGGESTED_TYPES = (
    content.JSON_CONTENT_TYPE,
    "text/plain",
    content.DEFAULT_CONTENT_TYPE,
    "text/markdown",
    "text/html",
    "application/x-ndjson",
)

_FIELDS: dict[type[DurableStreamsError], str] = {
    InvalidPath: "path",
    StreamExists: "path",
    InvalidOffset: "offset",
    OffsetOutOfRange: "offset",
    InvalidJSON: "text",
    EmptyAppend: "text",
    ContentTypeMismatch: "content_type",
}

_TEXT_HELP: dict[str, _StrOrPromise] = {
    Kind.JSON: gettext_lazy("A JSON value. Each element of an array becomes a message of its own."),
    Kind.TEXT: gettext_lazy("Becomes one message without any change. A line break at the end is kept."),
    Kind.BINARY: gettext_lazy("Becomes one message in UTF-8. For other bytes, choose a file."),
}

_TRANSLATED_REFUSALS = (
    # Titles: for refusals whose text has details.
    gettext_noop("Invalid stream path"),
    gettext_noop("Invalid JSON"),
    gettext_noop("Invalid header"),
    gettext_noop("Invalid offset"),
    gettext_noop("Offset out of range"),
    gettext_noop("Content type mismatch"),
    gettext_noop("Stream exists with another configuration"),
    gettext_noop("Source stream is gone"),
    gettext_noop("Payload too large"),
    # Texts of the store.
    gettext_noop("The stream was deleted; forks still read its data."),
    gettext_noop("There is no stream at this path. Create it with PUT."),
    gettext_noop("A deleted stream keeps this path for as long as it has forks. Use another path."),
    gettext_noop("The stream has ended; nothing can be appended to it."),
    gettext_noop("The offset is inside a message. Use an offset that the server returned."),
)
"""Refusals that translators find here. They are English on the wire, where clients compare them."""


class StreamForm(forms.Form):
    """A form whose data the store may refuse."""

    required_css_class = "required"

    @classmethod
    def initial_from_query(cls, query: QueryDict) -> dict[str, str]:
        """Return initial values from the query of a link, for text fields only, not for dates and files."""
        return {
            name: value
            for name, value in query.items()
            if isinstance(cls.base_fields.get(name), forms.CharField) and isinstance(value, str)
        }

    def refuse(self, error: DurableStreamsError) -> None:
        """Show an error of the store at its field, or above the form."""
        field = next((name for kind, name in _FIELDS.items() if isinstance(error, kind)), None)
        text = error.detail
        if isinstance(error, OffsetOutOfRange | InvalidOffset):
            text = text.replace("Stream-Fork-Offset", "The offset")
        message = _(text)
        if message == text and _(error.title) != error.title:  # the text has details, and its title tells the kind
            message = f"{_(error.title)}: {text}"
        self.add_error(field if field in self.fields else None, message)


class PayloadForm(StreamForm):
    """A form with data for a stream: a text or a file."""

    text = forms.CharField(
        label=gettext_lazy("Text"),
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 4, "class": "ds-payload", "spellcheck": "false"}),
    )
    file = forms.FileField(
        label=gettext_lazy("Or a file"),
        required=False,
        allow_empty_file=True,
        help_text=gettext_lazy("Its bytes are appended without any change."),
    )

    def body(self) -> bytes:
        """Return the data as the body of a request would have it."""
        upload = self.cleaned_data.get("file")
        if upload is not None:
            data: bytes = upload.read()
            return data
        # Browsers send each line break as CRLF.
        text: str = self.cleaned_data.get("text", "")
        return text.replace("\r\n", "\n").encode()

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        upload = self.cleaned_data.get("file")
        if upload is not None and self.cleaned_data.get("text"):
            self.add_error("file", _("Enter a text or choose a file, not both."))
        limit = config().max_append_bytes
        size = upload.size if upload is not None else len(self.cleaned_data.get("text", "").encode())
        if size > limit:
            # The limit of HTTP requests.
            self.add_error(
                "file" if upload is not None else "text",
                _("At most %(limit)s can be appended at once.") % {"limit": filesizeformat(limit)},
            )
        return cleaned


class AppendForm(PayloadForm):
    """Append a message to a stream of a content type, close it, or both at once."""

    close = forms.BooleanField(
        label=gettext_lazy("Close the stream with this"),
        required=False,
        help_text=gettext_lazy("Nothing can be appended after that."),
    )

    def __init__(self, content_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._content_type = content_type
        self.kind = Kind.of(content_type)
        self.fields["text"].help_text = _TEXT_HELP[self.kind]
        self.fields["text"].label = Kind.JSON.label if self.kind is Kind.JSON else _("Text")

    def operation(self, stream: Stream) -> Append:
        """Return the form's data as an operation.

        Raises:
            InvalidJSON: the data is not JSON, but the stream is.
            EmptyAppend: there is no data.
        """
        body = self.body()
        if not body:
            raise EmptyAppend(_("There is nothing to append. Enter a text, or choose a file that is not empty."))
        data = content.pack(stream.content_type, body)
        return Append(stream.path, stream.content_type, data, self.cleaned_data["close"], stream_id=stream.pk)


class LifetimeFields(StreamForm):
    """A form with the lifetime of a stream."""

    ttl = forms.CharField(
        label=gettext_lazy("TTL"),
        required=False,
        widget=forms.TextInput(attrs={"class": "vIntegerField", "inputmode": "numeric"}),
        help_text=gettext_lazy("Time to live: the stream expires after this many seconds without a read or an append."),
    )
    expires_at = forms.SplitDateTimeField(
        label=gettext_lazy("Expires at"),
        required=False,
        widget=widgets.AdminSplitDateTime,
        help_text=gettext_lazy("When the stream expires, even if it is used. Enter a time or a TTL, or neither."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The admin's template names neither of the two inputs for screen readers.
        for widget, name in zip(self.fields["expires_at"].widget.widgets, (_("Date"), _("Time")), strict=True):
            widget.attrs["aria-label"] = f"{self.fields['expires_at'].label}: {name}"

    def clean_ttl(self) -> int | None:
        try:
            return headers.ttl(self.cleaned_data["ttl"], smallest=1) if self.cleaned_data["ttl"] else None
        except InvalidHeader as error:
            raise forms.ValidationError(error.detail.replace("Stream-TTL", _("The TTL"))) from error

    def clean_expires_at(self) -> Any:
        if self.cleaned_data["expires_at"] is None:
            return None
        moment = clock.from_project(self.cleaned_data["expires_at"])
        if moment <= clock.now():
            raise forms.ValidationError(_("This time is in the past."))
        return moment

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.cleaned_data.get("ttl") is not None and self.cleaned_data.get("expires_at") is not None:
            self.add_error("expires_at", _("Enter a TTL or a time of expiry, not both."))
        return cleaned


class LifetimeForm(LifetimeFields):
    """A form for a new stream: its path and its lifetime."""

    path = forms.CharField(
        label=gettext_lazy("Path"),
        strip=False,
        max_length=paths.MAX_PATH_LENGTH,
        widget=forms.TextInput(attrs={"class": "vTextField", "spellcheck": "false", "autocapitalize": "off"}),
        help_text=gettext_lazy("Relative to the root of the streams, such as chat/42."),
    )

    def clean_path(self) -> str:
        try:
            return paths.validate(self.cleaned_data["path"])
        except DurableStreamsError as error:
            raise forms.ValidationError(error.detail) from error


class CreateForm(LifetimeForm, PayloadForm):
    """Create a stream, with or without a first message."""

    content_type = forms.CharField(
        label=gettext_lazy("Content type"),
        initial=content.JSON_CONTENT_TYPE,
        max_length=content.MAX_CONTENT_TYPE_LENGTH,
        widget=forms.TextInput(attrs={"class": "vTextField", "list": "ds-content-types", "spellcheck": "false"}),
        help_text=gettext_lazy(
            "Of all messages. It cannot be changed later. With application/json each JSON value is one message."
        ),
    )

    field_order = ("path", "content_type", "ttl", "expires_at", "text", "file")
    suggested_types = SUGGESTED_TYPES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["text"].label = _("First message")
        self.fields["text"].help_text = _("Optional. It must be JSON if the content type is JSON.")

    def clean_content_type(self) -> str:
        try:
            return content.validate(self.cleaned_data["content_type"])
        except InvalidHeader as error:
            raise forms.ValidationError(error.detail) from error

    def operation(self) -> Create:
        """Return the form's data as an operation.

        Raises:
            InvalidJSON: the first message is not JSON, but the stream is.
        """
        cleaned = self.cleaned_data
        data = content.pack_initial(cleaned["content_type"], self.body())
        return Create(cleaned["path"], cleaned["content_type"], cleaned["ttl"], cleaned["expires_at"], data=data)


class ForkForm(LifetimeForm):
    """Fork a stream at one of its offsets."""

    offset = forms.CharField(
        label=gettext_lazy("Offset"),
        required=False,
        widget=forms.TextInput(attrs={"class": "vTextField", "spellcheck": "false"}),
        help_text=gettext_lazy("The fork begins with all data before this offset. If empty: with all current data."),
    )

    field_order = ("path", "offset", "ttl", "expires_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["ttl"].help_text = _("Seconds without a read or an append. If empty: the TTL of the source.")

    def clean_offset(self) -> offsets.Offset | None:
        text = self.cleaned_data["offset"].strip()
        if not text:
            return None
        try:
            offset = offsets.decode(text)
        except InvalidOffset as error:
            raise forms.ValidationError(
                _("Copy an offset from one of the messages, or leave this field empty.")
            ) from error
        if isinstance(offset, offsets.Sentinel):
            return offsets.Offset(0, 0) if offset is offsets.Sentinel.START else None
        return offset

    def operation(self, source: Stream) -> Create:
        """Return the form's data as an operation."""
        cleaned = self.cleaned_data
        fork = Fork(source.path, cleaned["offset"], source_id=source.pk)
        return Create(cleaned["path"], source.content_type, cleaned["ttl"], cleaned["expires_at"], fork=fork)
