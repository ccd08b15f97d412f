"""The records of subscriptions and consumers in an archive: lines with checksums, as those of streams.

    a1b2c3d4 {"type":"subscription","name":"billing","kind":"webhook",...}
    11223344 {"type":"link","path":"orders/1","generation":1764369600000000,"position":42,...}

The links of a subscription follow it, in the order of their paths. They are its cursors. No lease, wake, failure or key
is in it: workers begin with what the cursors leave. Knows no database and no file names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

import msgspec
from msgspec import Meta, Struct

from ...models import Subscription
from ...protocol import arguments, paths
from ...protocol.errors import DurableStreamsError
from ...protocol.globs import glob
from ...protocol.producers import SERVER_MARK
from ...protocol.subscriptions import MAX_DESCRIPTION_LENGTH, MAX_LEASE_MS, MAX_URL_LENGTH, opaque, subscription_id
from .lines import ArchiveError, checked_line
from .records import WITHOUT_NUL, Microseconds, Number, Path

MAX_LEASE = max(MAX_LEASE_MS, 24 * 3600 * 1000)
"""The longest lease, in milliseconds. Those of consumers have no limit of the protocol."""

# No URL has a control character.
Url = Annotated[str, Meta(max_length=MAX_URL_LENGTH, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Text = Annotated[str, Meta(max_length=MAX_DESCRIPTION_LENGTH, pattern=WITHOUT_NUL)]
Digest = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{64})?\Z")]
OptionalPath = Annotated[str, Meta(max_length=paths.MAX_PATH_LENGTH)]


class SubscriptionRecord(Struct, tag="subscription", forbid_unknown_fields=True):
    """A subscription or a consumer, as it was configured. Times are in microseconds since 1970."""

    name: Annotated[str, Meta(min_length=1, max_length=arguments.MAX_NAME_LENGTH)]
    kind: Annotated[str, Meta(max_length=16)]
    pattern: OptionalPath
    webhook_url: Url
    wake_stream: OptionalPath
    lease_ms: Annotated[int, Meta(gt=0, le=MAX_LEASE)]
    description: Text
    config_hash: Digest
    base_url: Url
    from_beginning: bool
    is_paused: bool
    generation: Number
    """The number of its wakes. It goes on, so a request of an old wake is still refused."""
    created_at: Microseconds

    @property
    def shown_name(self) -> str:
        """The name for messages."""
        return self.name.removeprefix(SERVER_MARK)


class LinkRecord(Struct, tag="link", forbid_unknown_fields=True):
    """The cursor of the subscription before on one stream."""

    path: Path
    generation: Number | None
    """That of the stream. None: an explicit link waits for a stream at the path."""
    is_explicit: bool
    is_glob: bool
    position: Number | None
    """Up to where it was acknowledged. None: nothing was."""
    is_stopped: bool
    """Whether a message has failed, and the consumer waits for an operator."""


SubscriptionFileRecord = SubscriptionRecord | LinkRecord

_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(SubscriptionFileRecord)


class SubscriptionReader:
    """Reads and checks the records of a file.

    Args:
        file: the file.
        name: its name, for messages.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self.position = 0
        """Where the present record begins."""

    def error(self, what: str) -> ArchiveError:
        """Return the error for the present record."""
        return ArchiveError(f"{self._name}, byte {self.position}: {what}")

    def records(self) -> Iterator[SubscriptionFileRecord]:
        """Yield the records.

        Raises:
            ArchiveError: a record is damaged, foreign or out of order.
        """
        last_name, last_path = "", None
        following = 0
        while True:
            self.position = following
            text = checked_line(self._file, self.error)
            if text is None:
                return
            following += len(text)
            try:
                record: SubscriptionFileRecord = _decoder.decode(text[9:-1])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self.error(f"the record is not one of this version: {error}.") from error
            if isinstance(record, SubscriptionRecord):
                if record.name <= last_name:
                    raise self.error(f"{record.shown_name} is out of order.")
                last_name, last_path = record.name, ""
                self._check_subscription(record)
            else:
                if last_path is None or record.path <= last_path:
                    raise self.error(f"the link to {record.path} is out of order.")
                last_path = record.path
                self._check_link(record)
            yield record

    def _check_subscription(self, record: SubscriptionRecord) -> None:
        is_consumer = record.kind == Subscription.Kind.CONSUMER
        if record.kind not in Subscription.Kind.values or is_consumer != record.name.startswith(SERVER_MARK):
            raise self.error(f"{record.shown_name} is of an unknown kind, {record.kind!r}.")
        if (record.kind == Subscription.Kind.WEBHOOK) != bool(record.webhook_url):
            raise self.error(f"{record.shown_name} has a webhook, or none, against its kind.")
        if (record.kind == Subscription.Kind.PULL_WAKE) != bool(record.wake_stream):
            raise self.error(f"{record.shown_name} has a wake stream, or none, against its kind.")
        try:
            if is_consumer:
                opaque("The name of a consumer", record.shown_name)
            else:
                subscription_id(record.name)
            if record.pattern:
                glob(record.pattern)
            if record.wake_stream:
                arguments.path(record.wake_stream)
        except DurableStreamsError as error:
            raise self.error(f"{record.shown_name}: {error.detail}") from error

    def _check_link(self, record: LinkRecord) -> None:
        try:
            arguments.path(record.path)
        except DurableStreamsError as error:
            raise self.error(f"{record.path!r}: {error.detail}") from error
        waits = record.generation is None
        if waits and (record.position is not None or not record.is_explicit):
            raise self.error(f"the link to {record.path} has a cursor, but no stream.")
