"""Dead letters."""

import base64
import logging
from typing import Any

import pytest
from django.test import override_settings

from django_durable_streams.consumers import Batch, consumer
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import StreamClosed
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.stream_info import StreamInfo
from django_durable_streams.subscriptions.consumers import parking
from django_durable_streams.subscriptions.consumers.cursors import MAX_ERROR_LENGTH
from django_durable_streams.subscriptions.consumers.messages import StoredMessage
from django_durable_streams.subscriptions.consumers.reading import StreamReader
from django_durable_streams.testing import run_consumers

pytestmark = pytest.mark.django_db


def park(content_type: str, data: bytes, message: str = "on purpose", **options: Any) -> dict[str, Any]:
    """Let a consumer fail on one message, and return the dead letter."""

    @consumer("s", name="c", max_attempts=1, **options)
    def fail(batch: Batch) -> None:
        raise RuntimeError(message)

    Stream.objects.create(path="s", content_type=content_type).append(data)
    run_consumers(raise_errors=False)
    (stored,) = Stream.objects.get(path=options.get("dead_letters", "dead-letters/c")).read()
    letter: dict[str, Any] = stored
    return letter


def test_a_dead_letter_has_the_message_and_all_about_its_failure() -> None:
    letter = park("application/json", b'{"a": 1.0}')
    assert set(letter) == {"consumer", "stream", "offset", "content_type", "value", "error", "time"}
    assert letter["offset"] == Stream.objects.get(path="s").next_offset
    assert letter["error"]["type"] == "RuntimeError"
    assert letter["time"].endswith("Z")


def test_json_stays_as_it_was_written() -> None:
    text = b'{"n": 1.0,  "big": 123456789012345678901234567890}'
    park("application/json", text)
    assert b'"value":' + text in first_message("dead-letters/c").raw


def test_bytes_are_base64_and_text_is_text() -> None:
    assert park("application/octet-stream", b"\x00\xff")["base64"] == base64.b64encode(b"\x00\xff").decode()


def test_text_is_text() -> None:
    assert park("text/plain", "grün".encode())["value"] == "grün"


def test_a_large_message_is_named_and_left_out() -> None:
    letter = park("application/octet-stream", b"x" * (parking.MAX_VALUE_BYTES + 1))
    assert letter["omitted_bytes"] == parking.MAX_VALUE_BYTES + 1
    assert "base64" not in letter


@pytest.mark.parametrize("message", ["\ud800", "\x00", "x" * 100_000], ids=["surrogate", "nul", "long"])
def test_errors_of_any_text_can_be_stored(message: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(
        logging.CRITICAL
    )  # a report with an unpaired surrogate cannot be sent to the process that prints it
    letter = park("text/plain", b"x", message)
    assert len(letter["error"]["message"]) <= parking.MAX_TRACEBACK_LENGTH
    assert len(letter["error"]["traceback"]) <= MAX_ERROR_LENGTH


@pytest.mark.parametrize("limit", [2_000, 500])
def test_a_dead_letter_is_never_larger_than_an_append_may_be(limit: int) -> None:
    with override_settings(DURABLE_STREAMS={"MAX_APPEND_BYTES": limit}):
        letter = park("text/plain", b"\x01" * min(limit, 1_000), "x" * 1_000)
    assert letter["omitted_bytes"] == min(limit, 1_000)
    assert letter["error"]["type"] == "RuntimeError"


def test_the_path_of_dead_letters_can_be_chosen() -> None:
    assert park("text/plain", b"x", dead_letters="failures")["consumer"] == "c"


def test_dead_letters_go_to_a_stream_that_the_operator_has_made() -> None:
    Stream.objects.create(path="dead-letters/c", content_type="application/json", ttl=3600)
    assert park("text/plain", b"x")["value"] == "x"


def test_a_closed_stream_takes_no_dead_letter() -> None:
    one = consumer("s", name="c")(lambda batch: None)
    Stream.objects.create(path="dead-letters/c", content_type="application/json", closed=True)
    Stream.objects.create(path="s", content_type="text/plain", data="x")
    with pytest.raises(StreamClosed):
        parking.park(one, info_of("s"), first_message("s"), RuntimeError(), "default")


def info_of(path: str) -> StreamInfo:
    stream = Stream.objects.get(path=path)
    return log_reader.find_ids([stream.pk], "default")[stream.pk]


def first_message(path: str) -> StoredMessage:
    (message,) = StreamReader(info_of(path), None, "default").take(1)
    return message
