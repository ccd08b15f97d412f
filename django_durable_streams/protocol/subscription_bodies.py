"""The bodies of requests about subscriptions, as checked values (specification, sections 6 and 7).

A configuration with unknown fields is refused, because a misspelt field would silently mean another configuration. The
requests of workers may have more fields, so that no acknowledgement is lost for one.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from . import offsets
from .errors import InvalidOffset
from .subscriptions import (
    DEFAULT_LEASE_MS,
    MAX_GENERATION,
    MAX_STREAMS,
    Ack,
    SubscriptionConfig,
    WakeRequest,
    invalid_request,
    normalise,
    opaque,
    stream_path,
    stream_paths,
)

_MAX_REASON_LENGTH = 300
"""Characters of the parser's message that a response repeats: it may contain a part of the body."""


def parse_config(body: bytes) -> SubscriptionConfig:
    """Return the configuration in the body of a PUT (section 6.2), in its normal form.

    Raises:
        SubscriptionError: the body is invalid (400).
    """
    fields = _decode(body, _CONFIG)
    return normalise(
        SubscriptionConfig(
            kind=fields.type,
            pattern=fields.pattern or "",
            streams=tuple(fields.streams or ()),
            webhook_url=fields.webhook.url if fields.webhook is not None else "",
            wake_stream=fields.wake_stream or "",
            lease_ms=DEFAULT_LEASE_MS if fields.lease_ttl_ms is None else fields.lease_ttl_ms,
            description=fields.description or "",
        )
    )


def parse_streams(body: bytes) -> tuple[str, ...]:
    """Return the paths that a request adds (section 6.4): sorted, each once.

    Raises:
        SubscriptionError: the body is invalid (400).
    """
    return stream_paths(_decode(body, _STREAMS).streams)


def parse_claim(body: bytes) -> str:
    """Return the name of the worker that claims a subscription (section 7.2).

    Raises:
        SubscriptionError: the body is invalid (400).
    """
    return opaque("worker", _decode(body, _CLAIM).worker)


def parse_wake_request(body: bytes) -> WakeRequest:
    """Return the body of a callback, an ack or a release (sections 7.1 and 7.2).

    Raises:
        SubscriptionError: the body is invalid (400).
    """
    fields = _decode(body, _WAKE)
    acks = tuple(_ack(ack) for ack in fields.acks or ())
    return WakeRequest(opaque("wake_id", fields.wake_id), fields.generation, acks, bool(fields.done))


_Paths = Annotated[list[str], msgspec.Meta(max_length=MAX_STREAMS)]


class _WebhookFields(msgspec.Struct, forbid_unknown_fields=True):
    url: str


class _ConfigFields(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["webhook", "pull-wake"]
    pattern: str | None = None
    streams: _Paths | None = None
    webhook: _WebhookFields | None = None
    wake_stream: str | None = None
    lease_ttl_ms: int | None = None
    description: str | None = None


class _StreamsFields(msgspec.Struct, forbid_unknown_fields=True):
    streams: _Paths


class _ClaimFields(msgspec.Struct):
    worker: str


class _AckFields(msgspec.Struct):
    offset: str
    stream: str | None = None
    path: str | None = None


class _WakeFields(msgspec.Struct):
    wake_id: str
    generation: Annotated[int, msgspec.Meta(ge=0, le=MAX_GENERATION)]
    acks: Annotated[list[_AckFields], msgspec.Meta(max_length=MAX_STREAMS)] | None = None
    done: bool | None = None


_CONFIG = msgspec.json.Decoder(_ConfigFields)
_STREAMS = msgspec.json.Decoder(_StreamsFields)
_CLAIM = msgspec.json.Decoder(_ClaimFields)
_WAKE = msgspec.json.Decoder(_WakeFields)

Fields = TypeVar("Fields")


def _decode(body: bytes, decoder: msgspec.json.Decoder[Fields]) -> Fields:
    try:
        body.decode()  # msgspec does not check the bytes of values that it skips
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise invalid_request(f"The body is not UTF-8: byte {error.start} cannot be decoded.") from error
    except RecursionError as error:
        raise invalid_request("The body is nested too deeply.") from error
    except msgspec.DecodeError as error:
        reason = str(error)[:_MAX_REASON_LENGTH]
        raise invalid_request(f"The body is not the JSON of this request: {reason}.") from error


def _ack(fields: _AckFields) -> Ack:
    if fields.stream is not None and fields.path is not None and fields.stream != fields.path:
        raise invalid_request("An ack has stream, or its alias path, not both.")
    path = fields.stream if fields.stream is not None else fields.path
    if path is None:
        raise invalid_request("An ack needs stream.")
    try:
        return Ack(stream_path(path), offsets.decode(fields.offset))
    except InvalidOffset as error:
        raise invalid_request("The offset of an ack must be one that this server returned.") from error
