"""Whatever arguments Python callers give: they get the errors of the protocol, and never those of a database."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import Error, models
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from django_durable_streams.models import Stream
from django_durable_streams.protocol.arguments import MAX_NAME_LENGTH, MAX_TTL_SECONDS
from django_durable_streams.protocol.errors import (
    BadRequest,
    DurableStreamsError,
    EmptyAppend,
    InvalidHeader,
    InvalidOffset,
    InvalidPath,
    OffsetOutOfRange,
    PayloadTooLarge,
)

pytestmark = pytest.mark.django_db

TEXT, JSON = "text/plain", "application/json"
HALF = "\ud83d"
"""Half of a surrogate pair, which no database stores."""

Call = Callable[[Stream, Any], Any]

TTLS = [0, -5, 10**12, 2**63, 2**64, 10**30, MAX_TTL_SECONDS + 1, 1.5, "60", True, math.nan, math.inf, b"1", [60]]
SOON = datetime.now(UTC) + timedelta(hours=1)
EXPIRIES: list[Any] = [
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime.now(UTC) - timedelta(seconds=1),
    datetime(2099, 1, 1),
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
    date(2099, 1, 1),
    timedelta(days=1),
    "2099-01-01T00:00:00Z",
    4070908800,
]
NAMES = ["", "x" * (MAX_NAME_LENGTH + 1), "\0", "a\nb", "\x01llm", "\x7f", HALF, 7, b"bytes", ["x"]]
NUMBERS = [-1, 2**53, 2**63, 2**64, 10**30, 1.5, "1", None, True]
NO_TEXT = [7, 1.5, True, b"x", ["x"], {}, object(), gettext_lazy("x")]
PATHS = [*NO_TEXT, None, "", "/", "a/../b", "x" * 513, "\0", "a\\b", HALF, "/a", "a/", "a//b"]
KINDS = [*NO_TEXT, None, "", "text", "text/", "a/b\n", "a/b;\0", "x" * 256, "a/" + "b" * 254, "é/b", "a/b; \u20ac"]
OFFSETS = [*NO_TEXT, "", "x", "0", "0000000000000000_000000000000000", "-2", " -1", "now\n"]
SUB_OFFSETS = [-1, 10**16, 2**63, 2**70, 1.5, "1", None, True]

REFUSED: dict[str, tuple[Call, list[Any], type[DurableStreamsError]]] = {
    "create path": (lambda s, v: Stream.objects.create(path=v), PATHS, InvalidPath),
    "create content_type": (lambda s, v: Stream.objects.create(path="n", content_type=v), KINDS, InvalidHeader),
    "create ttl": (lambda s, v: Stream.objects.create(path="n", ttl=v), TTLS, InvalidHeader),
    "create expires_at": (lambda s, v: Stream.objects.create(path="n", expires_at=v), EXPIRIES, InvalidHeader),
    "create both": (lambda s, v: Stream.objects.create(path="n", ttl=v, expires_at=SOON), [60], InvalidHeader),
    "create data": (lambda s, v: Stream.objects.create(path="n", content_type=TEXT, data=v), [HALF], BadRequest),
    "create large": (lambda s, v: Stream.objects.create(path="n", data=v), [b"x" * 101], PayloadTooLarge),
    "ensure path": (lambda s, v: Stream.objects.ensure(v), PATHS, InvalidPath),
    "ensure ttl": (lambda s, v: Stream.objects.ensure("n", ttl=v), TTLS, InvalidHeader),
    "ensure expires_at": (lambda s, v: Stream.objects.ensure("n", expires_at=v), EXPIRIES, InvalidHeader),
    "set_lifetime ttl": (lambda s, v: s.set_lifetime(ttl=v), TTLS, InvalidHeader),
    "set_lifetime expires_at": (lambda s, v: s.set_lifetime(expires_at=v), EXPIRIES, InvalidHeader),
    "set_lifetime both": (lambda s, v: s.set_lifetime(ttl=v, expires_at=SOON), [60], InvalidHeader),
    "fork path": (lambda s, v: s.fork(v), PATHS, InvalidPath),
    "fork offset": (lambda s, v: s.fork("n", offset=v), [*OFFSETS, "-1", "now"], InvalidOffset),
    "fork past the end": (lambda s, v: s.fork("n", offset=v), ["9999999999999999_9999999999999999"], OffsetOutOfRange),
    "fork sub_offset": (lambda s, v: s.fork("n", sub_offset=v), SUB_OFFSETS, InvalidHeader),
    "fork ttl": (lambda s, v: s.fork("n", ttl=v), TTLS, InvalidHeader),
    "fork expires_at": (lambda s, v: s.fork("n", expires_at=v), EXPIRIES, InvalidHeader),
    "fork both": (lambda s, v: s.fork("n", ttl=v, expires_at=SOON), [60], InvalidHeader),
    "fork data": (lambda s, v: s.fork("n", data=v), [HALF], BadRequest),
    "append half": (lambda s, v: s.append(v), [HALF], BadRequest),
    "append nothing": (lambda s, v: s.append(v), ["", b""], EmptyAppend),
    "append large": (lambda s, v: s.append(v), ["x" * 101, b"x" * 101, "é" * 51], PayloadTooLarge),
    "append seq": (lambda s, v: s.append("x", seq=v), NAMES, InvalidHeader),
    "append producer id": (lambda s, v: s.append("x", producer=(v, 0, 0)), [*NAMES, None], InvalidHeader),
    "append epoch": (lambda s, v: s.append("x", producer=("p", v, 0)), NUMBERS, InvalidHeader),
    "append number": (lambda s, v: s.append("x", producer=("p", 0, v)), NUMBERS, InvalidHeader),
    "append producer": (lambda s, v: s.append("x", producer=v), [(), ("p",), ("p", 0, 0, 0), "pqr", 7], InvalidHeader),
    "append_many large": (lambda s, v: s.append_many(["x", v]), ["x" * 101], PayloadTooLarge),
    "append_many half": (lambda s, v: s.append_many(["x", v]), [HALF], BadRequest),
    "append_many producer": (lambda s, v: s.append_many(["x"], producer=(v, 0, 0)), NAMES, InvalidHeader),
    "append_many number": (lambda s, v: s.append_many(["x"], producer=("p", 0, v)), NUMBERS, InvalidHeader),
    "read": (lambda s, v: list(s.read(v)), OFFSETS, InvalidOffset),
    "tail": (lambda s, v: list(s.tail(v, timeout=0)), OFFSETS, InvalidOffset),
    "writer producer": (lambda s, v: s.writer(producer=v), NAMES, InvalidHeader),
    "awriter producer": (lambda s, v: s.awriter(producer=v), NAMES, InvalidHeader),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_http_refuses_is_refused_by_the_same_error(name: str, settings: Any) -> None:
    settings.DURABLE_STREAMS = {"MAX_APPEND_BYTES": 100}
    call, values, error = REFUSED[name]
    stream = Stream.objects.create(path="a", content_type=TEXT, data="once")
    for value in values:
        with pytest.raises(error) as refused:
            call(stream, value)
        assert refused.value.status < 500, value
        assert refused.value.detail
    assert list(stream.read()) == ["once"]
    assert Stream.objects.count() == 1
    stream.append("still", seq="1", producer=("p", 0, 0))


GOOD: dict[str, tuple[Call, list[Any]]] = {
    "create ttl": (lambda s, v: Stream.objects.create(path="n", ttl=v), [1, MAX_TTL_SECONDS]),
    "create expires_at": (
        lambda s, v: Stream.objects.create(path="n", expires_at=v),
        [SOON, SOON.astimezone(timezone(timedelta(hours=5, minutes=30))), datetime.max.replace(tzinfo=UTC)],
    ),
    "create content_type": (
        lambda s, v: Stream.objects.create(path="n", content_type=v),
        ["a/b", "a/" + "b" * 253, "text/html; charset=ü"],
    ),
    "create path": (lambda s, v: Stream.objects.create(path=v), ["x" * 512, "\U0001f600", "a b/ ", "%", "__ds2"]),
    "set_lifetime": (lambda s, v: s.set_lifetime(ttl=v), [1, MAX_TTL_SECONDS, None]),
    "fork ttl": (lambda s, v: s.fork("n", ttl=v), [1, MAX_TTL_SECONDS]),
    "fork sub_offset": (lambda s, v: s.fork("n", offset="0000000000000000_0000000000000000", sub_offset=v), [0, 4]),
    "seq": (lambda s, v: s.append("x", seq=v), ["x", "x" * MAX_NAME_LENGTH, "\U0001f600" * MAX_NAME_LENGTH]),
    "producer": (lambda s, v: s.append("x", producer=v), [("p", 2**53 - 1, 0), ["q", 0, 0], ("é" * 256, 0, 0)]),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_http_accepts_is_accepted(name: str) -> None:
    call, values = GOOD[name]
    for value in values:
        stream = Stream.objects.create(path="a", content_type=TEXT, data="once")
        try:
            call(stream, value)
        except Error as error:  # pragma: no cover
            pytest.fail(f"{value!r}: {error}")
        Stream.objects.all().delete()
        assert not Stream.objects.filter(path__isnull=False).exists()


class Names(models.TextChoices):
    """Texts that a project has names for."""

    PATH = "reports"
    KIND = JSON
    SEQ = "1"


@pytest.mark.parametrize("text", [SafeString, str, lambda value: Names(value)])
def test_every_kind_of_text_is_one(text: Callable[[str], str]) -> None:
    path, kind, seq = text("reports"), text(JSON), text("1")
    stream = Stream.objects.create(path=path, content_type=kind, data=seq)
    assert Stream.objects.ensure(path, content_type=kind) == (stream, False)
    stream.append(path, seq=seq, producer=(path, 0, 0))
    stream.fork("copy").delete()
    Stream.objects.create(path="source", content_type=kind).delete()
    assert list(stream.read(SafeString(Stream.objects.get(path=path).next_offset))) == []
    stream.delete()
    fork = Stream.objects.create(path="source").fork(path, offset=None)
    assert fork.path == "reports"


def test_a_path_of_the_control_namespace_is_not_found() -> None:
    with pytest.raises(DurableStreamsError) as refused:
        Stream.objects.create(path="__ds/x")
    assert refused.value.status == 404


def test_an_expiry_keeps_its_moment_whatever_its_zone() -> None:
    zone = timezone(timedelta(hours=-7))
    stream = Stream.objects.create(path="a", expires_at=datetime(2099, 1, 1, 5, tzinfo=zone))
    assert stream.expires_at == datetime(2099, 1, 1, 12, tzinfo=UTC)
    assert Stream.objects.ensure("a", expires_at=datetime(2099, 1, 1, 12, tzinfo=UTC)) == (stream, False)


OPTIONS: list[dict[str, Any]] = [
    *({"max_bytes": value} for value in (0, -1, 1.5, "1", None)),
    *({"interval": value} for value in (-1, -0.1, math.nan, "1", timedelta(seconds=1))),
    {"on_error": "raise"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_with_which_a_writer_would_never_commit_are_refused(options: Any) -> None:
    stream = Stream.objects.create(path="a")
    for make in (stream.writer, stream.awriter):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(**options)


def test_other_fields_of_the_model_are_no_arguments() -> None:
    for name in ("tail_position", "closed_by", "deadline", "id", "pk", "lineage"):
        with pytest.raises(TypeError):
            Stream.objects.create(path="a", **{name: 1})
