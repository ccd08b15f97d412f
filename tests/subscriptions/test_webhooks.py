"""One webhook: what is sent, to whom, and what its outcome is, whatever the receiver does."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address
from threading import Event
from threading import enumerate as enumerate_threads
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_durable_streams import clock
from django_durable_streams.access.webhook_hosts import Address
from django_durable_streams.models import SigningKey
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.subscriptions import extra, name_resolution, signing_keys, webhooks
from django_durable_streams.subscriptions.name_resolution import Resolver
from django_durable_streams.subscriptions.webhooks import WebhookRequest, WebhookResult, WebhookSender
from tests.certificates import tls_contexts
from tests.overriding import override_streams
from tests.subscriptions.receivers import (
    NAME,
    Answer,
    WebhookReceiver,
    endless,
    local_name,
    names,
    replies,
    sends,
)

BODY = json.dumps({"wake_id": "w_1", "text": "é"}, ensure_ascii=False).encode()
SECONDS = 5.0
SHORT = 0.3
"""For receivers that never answer: every test with it takes so long."""

KEY = signing_keys._new_key(1, clock.now())


def has_ipv6() -> bool:
    """Whether this machine can listen at ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def load_key() -> SigningKey:
    return KEY


def sender(resolver: Resolver | None = None, context: ssl.SSLContext | None = None) -> WebhookSender:
    return WebhookSender(load_key, resolver=resolver or local_name(), ssl_context=context)


def later(seconds: float = 60.0) -> datetime:
    """The end of a lease."""
    return clock.now() + timedelta(seconds=seconds)


async def send(url: str, seconds: float = SECONDS, by: WebhookSender | None = None) -> WebhookResult:
    return await (by or sender()).send(WebhookRequest(url, BODY, seconds, later()))


async def outcome(answer: Answer, seconds: float = SECONDS, **options: Any) -> WebhookResult:
    """The result of a webhook to a receiver with an answer. The connection has ended with it."""
    async with WebhookReceiver(answer, **options) as receiver:
        result = await send(receiver.url(), seconds)
        assert receiver.connections == 1
        async with asyncio.timeout(SECONDS):
            await receiver.ended.wait()
    return result


@pytest.fixture(autouse=True)
def _allowed_name() -> Iterator[None]:
    with override_streams(WEBHOOK_ALLOWED_HOSTS=[NAME]):
        yield


async def test_the_request_is_the_one_of_the_specification() -> None:
    async with WebhookReceiver(replies(200, b'{"done": true}')) as receiver:
        assert await send(receiver.url()) == ("done", "")
    (request,) = receiver.requests
    assert request.line == "POST /hook?a=1 HTTP/1.1"
    assert request.body == BODY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"{NAME}:{receiver.port}"
    assert request.headers["connection"] == "close"
    assert request.headers["user-agent"].startswith("django-durable-streams/")
    assert "transfer-encoding" not in request.headers
    assert "authorization" not in request.headers
    assert "cookie" not in request.headers


async def test_the_signature_is_made_when_the_request_is_sent() -> None:
    async with WebhookReceiver(replies(200)) as receiver:
        before = int(time.time())
        await send(receiver.url())
    fields = dict(part.split("=", 1) for part in receiver.requests[0].headers["webhook-signature"].split(","))
    assert list(fields) == ["t", "kid", "ed25519"]
    assert before <= int(fields["t"]) <= int(time.time())
    assert fields["kid"] == KEY.kid


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"done": true}', "done"),
        (b' {\n"done" :true } ', "done"),
        (b"", "accepted"),
        (b"{}", "accepted"),
        (b'{"done": false}', "accepted"),
        (b'{"done": 1}', "accepted"),
        (b'{"done": "true"}', "accepted"),
        (b'{"done": null}', "accepted"),
        (b'{"done": {"done": true}}', "accepted"),
        (b'[["done", true]]', "accepted"),
        (b'[{"done": true}]', "accepted"),
        (b'{"done": true, "acks": []}', "accepted"),
        (b'{"done": false, "done": true}', "accepted"),
        (b'{"done": true, "done": true}', "accepted"),
        (b'{"Done": true}', "accepted"),
        (b'{"done": true} x', "accepted"),
        (b'{"done": true', "accepted"),
        (b"\xff\xfe\xff", "accepted"),
        (b"[" * 60_000, "accepted"),
        (b"1" * 60_000, "accepted"),
        (b"<html>done</html>", "accepted"),
    ],
    ids=lambda value: str(value[:40]) if isinstance(value, bytes) else value,
)
async def test_only_the_exact_body_acknowledges(body: bytes, expected: str) -> None:
    assert await outcome(replies(200, body)) == (expected, "")


async def test_a_compressed_body_is_not_expanded() -> None:
    import gzip

    body = gzip.compress(b'{"done": true}')
    assert (await outcome(replies(200, body, "Content-Encoding: gzip"))).outcome == "accepted"


@pytest.mark.parametrize(("status", "expected"), [(200, "done"), (201, "done"), (202, "done"), (206, "done")])
async def test_every_status_of_success_counts(status: int, expected: str) -> None:
    assert (await outcome(replies(status, b'{"done": true}'))).outcome == expected
    assert (await outcome(sends(b"HTTP/1.1 204 X\r\n\r\n"))).outcome == "accepted"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 400, 401, 404, 409, 410, 429, 500, 502, 503, 599])
async def test_every_other_status_is_a_refusal(status: int) -> None:
    result = await outcome(replies(status, b'{"done": true}', "Retry-After: 1"))
    assert result.outcome == "failed"
    assert str(status) in result.error


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with WebhookReceiver(replies(200, b'{"done": true}')) as inside:
        for location in (inside.url("127.0.0.1"), inside.url(), "//127.0.0.1/", "/other"):
            result = await outcome(replies(status, b"", f"Location: {location}"))
            assert result == ("failed", f"The receiver answered with status {status}. Redirects are not followed.")
    assert inside.connections == 0


async def test_other_headers_lead_nowhere() -> None:
    async with WebhookReceiver(replies(200)) as inside:
        url = inside.url("127.0.0.1")
        head = (f"Refresh: 0; url={url}", f"Link: <{url}>; rel=preload", f'Alt-Svc: h3="127.0.0.1:{inside.port}"')
        assert (await outcome(replies(200, b"", *head))).outcome == "accepted"
        assert (await outcome(replies(200, b"", *head, f"Content-Location: {url}"))).outcome == "accepted"
    assert inside.connections == 0


async def test_no_cookie_of_one_receiver_goes_to_another_request() -> None:
    by = sender()
    async with WebhookReceiver(replies(200, b"", "Set-Cookie: a=b; Path=/")) as receiver:
        await send(receiver.url(), by=by)
        await send(receiver.url(), by=by)
    assert len(receiver.requests) == receiver.connections == 2
    assert "cookie" not in receiver.requests[1].headers


# Receivers that do not answer, or not as HTTP.


async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer nothing until the client closes the connection."""
    await reader.read()


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection."""


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send one byte of a long head after the other."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drips_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    await drips(reader, writer)


@pytest.mark.parametrize("answer", [waits, drips, drips_body, sends(b"HTTP/1.1 100 C\r\n\r\n", then_waits=True)])
async def test_a_receiver_that_is_too_slow_may_be_at_work(answer: Answer) -> None:
    began = time.monotonic()
    assert await outcome(answer, SHORT) == ("unknown", "The receiver did not answer in time.")
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize(
    "answer",
    [
        closes,
        sends(b"H"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Le"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + b'{"done": true'),
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n" + b'{"done": true}'),
    ],
)
async def test_a_receiver_that_closes_after_the_request_may_be_at_work(answer: Answer) -> None:
    assert (await outcome(answer)).outcome == "unknown"


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 9 X\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\r\n" * 100,
        bytes(200),
    ],
    ids=ascii,
)
async def test_an_answer_that_is_not_http_acknowledges_nothing(data: bytes) -> None:
    result = await outcome(sends(data))
    assert result.outcome in ("unknown", "failed")
    assert result.error


async def test_an_upgrade_is_a_refusal() -> None:
    result = await outcome(sends(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"))
    assert result.outcome in ("failed", "unknown")


@pytest.mark.parametrize(
    "answer",
    [
        replies(200, bytes(100 * 1024 * 1024)),
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + bytes(100_000)),
        endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        endless(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000),
    ],
    ids=["100 MB", "announced", "interim responses", "head"],
)
async def test_a_response_that_is_too_large_is_cut(answer: Answer) -> None:
    began = time.monotonic()
    assert await outcome(answer) == ("failed", "The response of the receiver is too large.")
    assert time.monotonic() - began < SECONDS / 2


async def test_the_body_of_a_refusal_is_not_read() -> None:
    assert "500" in (await outcome(replies(500, bytes(10 * 1024 * 1024)))).error


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"", b"HTTP/1.1 100 C\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a:\r\n"),
    ],
    ids=["body", "interim responses", "head"],
)
async def test_an_answer_in_tiny_pieces_takes_no_time_of_others(start: bytes, piece: bytes) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)

    other = asyncio.create_task(watch())
    result = await outcome(sends(start + piece * (1_000_000 // len(piece)), then_waits=True))
    other.cancel()
    assert result == ("failed", "The response of the receiver is too large.")
    assert longest < 0.5  # all of it takes a second of the processor


@settings(max_examples=40)
@given(st.binary(max_size=300), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b'HTTP/1.1 200 OK\r\n\r\n{"done"']))
def test_no_bytes_of_a_receiver_make_more_than_a_result(data: bytes, start: bytes) -> None:
    with override_streams(WEBHOOK_ALLOWED_HOSTS=[NAME]):
        result = asyncio.run(outcome(sends(start + data)))
    assert result.outcome in ("accepted", "failed", "unknown")


# Receivers that are not reached.


async def test_a_refused_connection_is_a_failure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert await send(f"http://{NAME}:{port}/") == ("failed", "The receiver cannot be reached.")


async def test_the_next_address_is_tried() -> None:
    async with WebhookReceiver(replies(200)) as receiver:
        by = sender(names(hooks_example="127.0.0.9 127.0.0.1"))
        assert (await send(receiver.url(), by=by)).outcome == "accepted"


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6")
async def test_an_ipv6_address_has_brackets_in_the_request() -> None:
    async with WebhookReceiver(replies(200), host="::1") as receiver:
        with override_streams(WEBHOOK_ALLOWED_HOSTS=["::1"]):
            assert (await send(receiver.url("[::1]"))).outcome == "accepted"
    assert receiver.requests[0].headers["host"] == f"[::1]:{receiver.port}"


async def test_a_name_that_does_not_exist_is_a_failure() -> None:
    result = await send(f"http://{NAME}/", by=sender(names()))
    assert result == ("failed", "The receiver cannot be reached.")


async def test_a_url_that_is_not_allowed_any_more_is_a_failure() -> None:
    async with WebhookReceiver(replies(200)) as receiver:
        with override_streams(WEBHOOK_ALLOWED_HOSTS=[]):
            result = await send(receiver.url())
    assert result.outcome == "failed"
    assert receiver.connections == 0


async def test_a_missing_package_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "is_installed", lambda: False)
    result = await send(f"http://{NAME}/")
    assert result.outcome == "failed"
    assert extra.INSTALL in result.error


async def test_a_package_that_cannot_be_imported_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "django_durable_streams.subscriptions.http_client", None)
    with caplog.at_level(logging.ERROR):
        result = await send(f"http://{NAME}/")
    assert result.outcome == "failed"
    assert extra.INSTALL in result.error
    assert [record.message for record in caplog.records] == ["A webhook could not be sent."]


async def test_a_key_that_cannot_be_used_is_a_failure_that_says_why() -> None:
    async def refuse() -> SigningKey:
        raise ServiceUnavailable("The database does not answer.")

    result = await send(f"http://{NAME}/", by=WebhookSender(refuse, resolver=local_name()))
    assert result == ("failed", "The database does not answer.")


async def test_a_wrong_secret_tells_the_operator_once_and_the_subscriber_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with override_streams(WEBHOOK_KEY_SECRET="a secret of the tests that is long enough"):
        key = signing_keys._new_key(1, clock.now())

    async def load() -> SigningKey:
        return key

    by = WebhookSender(load, resolver=local_name())
    with caplog.at_level(logging.ERROR):
        results = {await send(f"http://{NAME}/", by=by) for _ in range(3)}
    assert results == {("failed", "The server cannot sign webhooks.")}
    (record,) = caplog.records
    assert record.message.startswith("Webhooks cannot be signed. The key that signs webhooks is encrypted")


async def test_a_bug_is_a_failure_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> SigningKey:
        raise KeyError("secret")

    with caplog.at_level(logging.ERROR):
        result = await send(f"http://{NAME}/", by=WebhookSender(fail, resolver=local_name()))
    assert result == ("failed", "The request could not be sent.")
    assert [record.message for record in caplog.records] == ["A webhook could not be sent."]


async def test_the_key_is_asked_for_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    async def load() -> SigningKey:
        asked.append(1)
        return KEY

    by = WebhookSender(load, resolver=local_name())
    async with WebhookReceiver(replies(200)) as receiver:
        for _ in range(3):
            await send(receiver.url(), by=by)
        assert len(asked) == 1
        monkeypatch.setattr(webhooks, "KEY_SECONDS", -1.0)
        by = WebhookSender(load, resolver=local_name())
        await send(receiver.url(), by=by)
        await send(receiver.url(), by=by)
    assert len(asked) == 3


# Names whose addresses change, and resolvers that do not answer.


async def test_a_name_is_looked_up_once_for_each_request_and_each_answer_is_checked() -> None:
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "10.0.0.1"], ["127.0.0.1"]]
    lookups: list[str] = []

    def rebind(host: str, port: int) -> list[Address]:
        lookups.append(host)
        return [ip_address(text) for text in answers[len(lookups) - 1]]

    by = sender(Resolver(rebind))
    with override_streams(WEBHOOK_ALLOWED_HOSTS=["127.0.0.1"]):
        server, client = tls_contexts(NAME)
        by = sender(Resolver(rebind), client)
        async with WebhookReceiver(replies(200), context=server) as receiver:
            async with WebhookReceiver(replies(200), host="127.0.0.2", port=receiver.port) as other:
                outcomes = [(await send(receiver.url(scheme="https"), by=by)).outcome for _ in answers]
            assert outcomes == ["accepted", "failed", "failed", "accepted"]
            assert lookups == [NAME] * 4
            assert (receiver.connections, other.connections) == (2, 0)


async def test_the_library_never_looks_up_a_name_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: Any, *args: Any, **options: Any) -> Any:
        raise AssertionError(f"{host} was looked up.")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert (await outcome(replies(200))).outcome == "accepted"


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with WebhookReceiver(replies(200)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url("127.0.0.1"))
        assert (await outcome(replies(200))).outcome == "accepted"
    assert proxy.connections == 0


async def test_a_name_server_that_does_not_answer_takes_no_more_than_the_time_of_the_request() -> None:
    release = Event()

    def hang(host: str, port: int) -> list[Address]:
        release.wait(SECONDS)
        return []

    try:
        began = time.monotonic()
        result = await send(f"http://{NAME}/", SHORT, sender(Resolver(hang)))
        assert result == ("failed", "The receiver did not answer in time.")
        assert time.monotonic() - began < SECONDS / 2
    finally:
        release.set()


class Hanging:
    """A lookup that ends when a test says so, and the names for which it was called."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self._release = Event()

    def __call__(self, host: str, port: int) -> list[Address]:
        self.hosts.append(host)
        self._release.wait(SECONDS)
        return [ip_address("127.0.0.1")]

    def release(self) -> None:
        self._release.set()


async def test_lookups_that_hang_are_one_for_each_name_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_resolution, "MAX_LOOKUPS", 3)
    hanging = Hanging()
    by = sender(Resolver(hanging))
    try:
        with override_streams(WEBHOOK_ALLOWED_HOSTS=[".example"]):
            urls = [f"http://{name}.example/" for name in ("a", "a", "b", "a", "b", "c", "d")]
            results = await asyncio.gather(*(send(url, SHORT, by) for url in urls))
            assert {result.outcome for result in results} == {"failed"}
            assert await send("http://a.example/", SHORT, by) == ("failed", "The receiver did not answer in time.")
            assert await send("http://d.example/", SHORT, by) == ("failed", "The receiver cannot be reached.")
        assert sorted(hanging.hosts) == ["a.example", "b.example", "c.example"]
        # Other threads of the process are free.
        assert await asyncio.to_thread(lambda: 7) == 7
    finally:
        hanging.release()


async def test_a_lookup_that_ends_late_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_resolution, "MAX_LOOKUPS", 1)
    hanging = Hanging()
    resolver = Resolver(hanging)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await resolver.resolve("a.example", 1)
    with pytest.raises(OSError, match="Too many"):
        await resolver.resolve("b.example", 1)
    late = asyncio.create_task(resolver.resolve("a.example", 1))
    hanging.release()
    async with asyncio.timeout(SECONDS):
        assert [str(address) for address in await late] == ["127.0.0.1"]
        assert [str(address) for address in await resolver.resolve("b.example", 1)] == ["127.0.0.1"]
    assert hanging.hosts == ["a.example", "b.example"]


async def test_names_that_nobody_answers_for_keep_no_lookup_from_names_that_were_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(name_resolution, "MAX_LOOKUPS", 2)
    hanging = Hanging()
    local = [ip_address("127.0.0.1")]
    resolver = Resolver(lambda host, port: local if host == "living.example" else hanging(host, port))
    dead = [asyncio.create_task(resolver.resolve("dead-0.example", 1))]
    try:
        assert await resolver.resolve("living.example", 1) == local
        dead += [asyncio.create_task(resolver.resolve(f"dead-{number}.example", 1)) for number in range(1, 5)]
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="Too many"):
            await resolver.resolve("new.example", 1)
        assert await resolver.resolve("living.example", 1) == local
    finally:
        hanging.release()
        await asyncio.gather(*dead, return_exceptions=True)


async def test_a_lookup_that_outlives_its_event_loop_disturbs_nobody() -> None:
    hanging = Hanging()

    async def ask() -> None:
        async with asyncio.timeout(0.01):
            await Resolver(hanging).resolve("a.example", 1)

    def run() -> None:
        with pytest.raises(TimeoutError):
            asyncio.run(ask())

    await asyncio.to_thread(run)
    threads = [thread for thread in enumerate_threads() if thread.name == "durable-streams-resolver"]
    hanging.release()
    for thread in threads:
        await asyncio.to_thread(thread.join, SECONDS)
        assert not thread.is_alive()


async def test_the_system_knows_this_machine() -> None:
    assert {address.is_loopback for address in await Resolver().resolve("localhost", 80)} == {True}


async def test_whatever_the_resolver_raises_is_a_failure() -> None:
    def fail(host: str, port: int) -> list[Address]:
        raise UnicodeError("label too long")

    assert await send(f"http://{NAME}/", by=sender(Resolver(fail))) == ("failed", "The receiver cannot be reached.")


# TLS.


async def test_https_works_with_a_certificate_for_the_name() -> None:
    server, client = tls_contexts(NAME)
    async with WebhookReceiver(replies(200, b'{"done":true}'), context=server) as receiver:
        result = await send(receiver.url(scheme="https"), by=sender(context=client))
    assert result == ("done", "")
    assert receiver.requests[0].headers["host"] == f"{NAME}:{receiver.port}"


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_a_certificate_for_another_name_or_of_a_stranger_gets_no_request(is_trusted: bool) -> None:
    server, client = tls_contexts("other.example" if is_trusted else NAME)
    by = sender(context=client if is_trusted else None)
    async with WebhookReceiver(replies(200), context=server) as receiver:
        assert await send(receiver.url(scheme="https"), by=by) == (
            "failed",
            "The TLS handshake with the receiver failed.",
        )
        assert receiver.requests == []


@pytest.mark.parametrize("answer", [waits, closes, sends(b"HTTP/1.1 200 OK\r\n\r\n")], ids=["waits", "closes", "http"])
async def test_a_receiver_without_tls_gets_no_request_and_no_connection_stays(answer: Answer) -> None:
    async with WebhookReceiver(answer, reads=False) as receiver:
        result = await send(receiver.url(scheme="https"), SHORT)
        assert result.outcome == "failed"
        async with asyncio.timeout(SECONDS):
            await receiver.ended.wait()


# Endings.


async def cancel(receiver: WebhookReceiver, url: str) -> None:
    """Cancel a request that has reached its receiver."""
    task = asyncio.create_task(send(url, 60.0))
    async with asyncio.timeout(SECONDS):
        await receiver.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await receiver.ended.wait()


async def test_a_request_that_is_cancelled_leaves_no_connection() -> None:
    async with WebhookReceiver(waits) as receiver:
        await cancel(receiver, receiver.url())
        assert len(receiver.requests) == 1


async def test_a_handshake_that_is_cancelled_leaves_no_connection() -> None:
    async with WebhookReceiver(waits, reads=False) as receiver:
        await cancel(receiver, receiver.url(scheme="https"))


async def test_many_requests_at_once_leave_nothing_behind() -> None:
    before = len(asyncio.all_tasks())
    by = sender()
    async with WebhookReceiver(replies(200, b'{"done":true}')) as receiver, WebhookReceiver(closes) as other:
        urls = [receiver.url(), other.url()] * 50
        results = await asyncio.gather(*(send(url, by=by) for url in urls))
    assert [result.outcome for result in results] == ["done", "unknown"] * 50
    await by.close()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before
    gc.collect()  # a forgotten connection warns, and warnings are errors


# The end of the lease


async def test_nothing_is_sent_after_the_end_of_the_lease() -> None:
    """The next wake may be on its way by then, and the receiver would have two."""

    async def load_slowly() -> SigningKey:
        await asyncio.sleep((lease_ends_at - clock.now()).total_seconds())
        return KEY

    by = WebhookSender(load_slowly, resolver=local_name())
    async with WebhookReceiver(replies(200)) as receiver:
        lease_ends_at = later(0.05)
        result = await by.send(WebhookRequest(receiver.url(), BODY, SECONDS, lease_ends_at))
        assert result == ("failed", "The lease ended before the request was sent.")
        assert receiver.connections == 0


async def test_a_request_that_has_not_left_at_the_end_of_the_lease_never_leaves() -> None:
    waits = Event()

    def lookup(host: str, port: int) -> list[Address]:
        waits.wait(SECONDS)
        return [ip_address("127.0.0.1")]

    try:
        async with WebhookReceiver(replies(200)) as receiver:
            by = sender(Resolver(lookup))
            result = await by.send(WebhookRequest(receiver.url(), BODY, SECONDS, later(SHORT)))
            assert result == ("failed", "The receiver did not answer in time.")
            assert receiver.connections == 0
    finally:
        waits.set()
