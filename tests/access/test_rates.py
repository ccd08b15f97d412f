"""Rates, addresses, and what may be created."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.cache.backends.base import memcache_key_warnings
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from django_durable_streams.access import rates
from django_durable_streams.access.addresses import client_address
from django_durable_streams.access.base import Action
from django_durable_streams.access.identities import Identity
from django_durable_streams.access.rates import RateLimits, parse_rate
from django_durable_streams.models import Stream
from tests.access.conftest import log_in_at_django
from tests.access.operations import CLOSE, TEXT, send
from tests.access.visitors import Visitor
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

HOUR = {"append": "3/h", "read": "2/h"}


@pytest.fixture(autouse=True)
def streams(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # In the middle of every window: no test falls on a border.
    monkeypatch.setattr(rates.time, "time", lambda: 1_800_000_000.0 + 1800)  # type: ignore[attr-defined]
    caches["default"].clear()
    Stream.objects.create(path="a", content_type="text/plain").append("abc")
    yield
    caches["default"].clear()


@override_streams(RATE_LIMITS=HOUR)
async def test_one_too_many_is_refused_and_told_when_to_come_back(client: AsgiClient) -> None:
    statuses = [(await send(client, "append")).status for _ in range(3)]
    refused = await send(client, "append")
    assert statuses == [204] * 3
    assert (refused.status, refused.headers["retry-after"]) == (429, "1800")
    assert refused.json()["type"] == "urn:durable-streams:error:too-many-requests"
    assert (await Stream.objects.aget(path="a")).tail_position == 6
    assert [(await send(client, "read")).status for _ in range(3)] == [200, 200, 429]
    assert (await send(client, "delete")).status == 204


def test_every_cache_takes_the_names_of_all_users() -> None:
    numbers = [
        7,
        "7 ",
        "ann",
        "ann b",
        "\N{GREEK SMALL LETTER ALPHA}",
        "x" * 300,
        "x" * 301,
        "a\nb",
        "a:1",
        UUID(int=7),
    ]
    names = set()
    for number in numbers:
        user = User(username="x")
        user.pk = number  # type: ignore[assignment]
        key = f"{rates.PREFIX}:append:{rates._name(Identity(user), None)}:1800000"  # type: ignore[arg-type]
        assert not [*memcache_key_warnings(f":1:{key}")]
        names.add(key)
    assert len(names) == len(numbers)


# What does each action, and only that, and what it may be done with besides.
ACTS: dict[Action, list[tuple[str, str, dict[str, str], bytes]]] = {
    Action.CREATE: [
        ("PUT", "made{0}", TEXT, b""),
        ("PUT", "made{0}", {**TEXT, **CLOSE}, b"all"),
        ("PUT", "made{0}", {"stream-forked-from": "/v1/stream/a"}, b""),
    ],
    Action.READ: [
        ("GET", "a", {}, b""),
        ("HEAD", "a", {}, b""),
        ("GET", "a?offset=-1&live=long-poll", {}, b""),
        ("GET", "closed?offset=-1&live=sse", {}, b""),
    ],
    Action.APPEND: [
        ("POST", "a", TEXT, b"x"),
        ("POST", "s{0}", {**TEXT, **CLOSE}, b"x"),
    ],
    Action.CLOSE: [
        ("POST", "s{0}", CLOSE, b""),
        ("POST", "s{0}", {"stream-closed": "TRUE"}, b""),
        ("POST", "s{0}", {**TEXT, **CLOSE}, b"x"),
    ],
    Action.DELETE: [("DELETE", "s{0}", {}, b"")],
    Action.SUBSCRIBE: [
        ("PUT", "__ds/subscriptions/s{0}", {}, b'{"type":"pull-wake","streams":["a"],"wake_stream":"w"}'),
    ],
    Action.LIST: [("GET", "__ds/streams", {}, b""), ("HEAD", "__ds/streams?prefix=a", {}, b"")],
}


@pytest.mark.parametrize("action", Action)
@pytest.mark.slow
async def test_each_action_has_a_limit_that_is_kept(client: AsgiClient, action: Action) -> None:
    await Stream.objects.acreate(path="closed", content_type="text/plain", closed=True, data="abc")
    for each in range(30):
        await Stream.objects.acreate(path=f"s{each}", content_type="text/plain")
    number = 0

    async def act(kind: Action, index: int) -> int:
        nonlocal number
        number += 1
        method, target, headers, body = ACTS[kind][index % len(ACTS[kind])]
        return (await client.request(method, target.format(number), headers, body)).status

    with override_streams(RATE_LIMITS={action.value: "3/h"}):
        statuses = [await act(action, index) for index in range(6)]
        assert [status < 300 for status in statuses[:3]] == [True] * 3
        assert statuses[3:] == [429] * 3
        for other in set(Action) - {action}:
            index = 0  # of appends, the one that does not close
            if {action, other} != {Action.APPEND, Action.CLOSE} or other is Action.APPEND:
                assert await act(other, index) < 300


@override_streams(RATE_LIMITS=HOUR)
async def test_all_who_come_at_once_are_counted_each(client: AsgiClient) -> None:
    replies = await asyncio.gather(*(send(client, "append") for _ in range(20)))
    assert sorted(reply.status for reply in replies) == [204] * 3 + [429] * 17


async def test_a_new_window_counts_anew(client: AsgiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_streams(RATE_LIMITS={"append": "1/h"}):
        assert [(await send(client, "append")).status for _ in range(2)] == [204, 429]
        monkeypatch.setattr(rates.time, "time", lambda: 1_800_000_000.0 + 3600)  # type: ignore[attr-defined]
        assert [(await send(client, "append")).status for _ in range(2)] == [204, 429]


@override_streams(RATE_LIMITS=HOUR)
async def test_users_and_addresses_have_counts_of_their_own(client: AsgiClient, make_user: Callable[..., User]) -> None:
    def enter(name: str) -> Visitor:
        return Visitor(client, log_in_at_django(make_user(name)))

    ann, bob = await sync_to_async(enter)("ann"), await sync_to_async(enter)("bob")
    for visitor in (client, ann, bob):
        assert [(await send(visitor, "read")).status for _ in range(3)] == [200, 200, 429]


@override_streams(RATE_LIMITS=HOUR, TRUSTED_PROXIES=["127.0.0.1"])
async def test_behind_a_proxy_clients_are_counted_and_not_the_proxy(client: AsgiClient) -> None:
    for address in ("192.0.2.1", "192.0.2.2"):
        headers = {"x-forwarded-for": f"10.0.0.1, {address}"}
        assert [(await send(client, "read", headers=headers)).status for _ in range(3)] == [200, 200, 429]


@override_streams(RATE_LIMITS=HOUR)
async def test_nobody_counts_as_another_by_saying_so(client: AsgiClient) -> None:
    headers = [{"x-forwarded-for": f"192.0.2.{number}"} for number in range(3)]
    assert [(await send(client, "read", headers=each)).status for each in headers] == [200, 200, 429]


class Broken(LocMemCache):
    def add(self, *args: Any, **kwargs: Any) -> bool:
        raise ConnectionError("away")


async def test_a_cache_that_does_not_answer_lets_everybody_pass(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    broken = {"default": {"BACKEND": "tests.access.test_rates.Broken"}}
    with override_streams(RATE_LIMITS={"read": "1/d"}), override_settings(CACHES=broken):
        with caplog.at_level(logging.CRITICAL):
            assert [(await send(client, "read")).status for _ in range(3)] == [200] * 3
        assert (await send(client, "read")).status == 200
    assert "the cache fails" in caplog.text


class Counting(LocMemCache):
    calls = 0

    def add(self, *args: Any, **kwargs: Any) -> bool:
        Counting.calls += 1
        return super().add(*args, **kwargs)


@override_settings(CACHES={"default": {"BACKEND": "tests.access.test_rates.Counting"}})
async def test_those_who_wait_together_share_a_call_of_the_cache(client: AsgiClient) -> None:
    Counting.calls = 0
    with override_streams(RATE_LIMITS={"read": "1000/d"}):
        replies = await asyncio.gather(*(send(client, "read") for _ in range(50)))
    assert {reply.status for reply in replies} == {200}
    assert Counting.calls < 25


@override_settings(CACHES={"default": {"BACKEND": "tests.access.test_rates.Counting"}})
async def test_the_cache_is_not_asked_about_those_who_are_over_their_limit(client: AsgiClient) -> None:
    with override_streams(RATE_LIMITS={"read": "1/d"}):
        assert [(await send(client, "read")).status for _ in range(2)] == [200, 429]
        Counting.calls = 0
        assert [(await send(client, "read")).status for _ in range(5)] == [429] * 5
    assert Counting.calls == 0


@pytest.mark.parametrize(
    ("text", "rate"), [("100/s", (100, 1)), ("5/m", (5, 60)), ("2000/10m", (2000, 600)), ("1/d", (1, 86_400))]
)
def test_rates(text: str, rate: tuple[int, int]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "100", "0/s", "100/x", "100 / s", "-1/s", "1.5/s", "100/0s", None, 100])
def test_rates_that_mean_nothing(text: Any) -> None:
    with pytest.raises(ValueError, match="A rate must be a text"):
        parse_rate(text)
    with pytest.raises(ValueError, match="write"):
        RateLimits({"write": "1/s"}, "default")


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "expected"),
    [
        ("192.0.2.1", None, [], "192.0.2.1"),
        ("192.0.2.1", "198.51.100.1", [], "192.0.2.1"),
        ("192.0.2.1", "198.51.100.1", ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", "198.51.100.1", ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.1", ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", ["10.0.0.0/8"], "10.0.0.3"),
        ("10.0.0.1", "rubbish", ["10.0.0.0/8"], "rubbish"),
        ("10.0.0.1", "", ["10.0.0.0/8"], "unknown"),
        ("10.0.0.1", None, ["10.0.0.0/8"], "10.0.0.1"),
        ("", "198.51.100.1", ["127.0.0.1"], "198.51.100.1"),
        ("", "198.51.100.1", [], "unknown"),
        ("::1", "2001:db8::1", ["::1"], "2001:db8::1"),
    ],
)
def test_addresses(peer: str, forwarded: str | None, proxies: list[str], expected: str) -> None:
    scope = {"client": (peer, 1) if peer else None}
    with override_streams(TRUSTED_PROXIES=proxies):
        assert client_address(scope, None if forwarded is None else forwarded.encode()) == expected


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2::9", "2001:0db8:0001:0002"),
        ("a name\n", "unknown"),
    ],
)
def test_who_has_a_network_counts_once(address: str, name: str) -> None:
    assert rates._network(address) == name


async def test_streams_are_created_where_they_may_be(client: AsgiClient) -> None:
    with override_streams(PATH_PATTERNS=["chat/*", "users/**"]):
        for path, status in (("chat/1", 201), ("users/1/x", 201), ("chat/1/2", 403), ("other", 403), ("chat//1", 400)):
            assert (await client.request("PUT", path, TEXT)).status == status
        assert (await send(client, "read")).status == 200  # what is there already is used as before
        assert (await client.request("PUT", "other", {"stream-forked-from": "/v1/stream/a"})).status == 403


async def test_streams_are_created_of_what_they_may_be(client: AsgiClient) -> None:
    with override_streams(CONTENT_TYPES=["application/json", "text/plain"]):
        for number, (kind, status) in enumerate(
            [
                ("application/json", 201),
                ("Text/Plain; charset=utf-8", 201),
                ("text/html", 415),
                ("application/jsonp", 415),
                (None, 415),
            ]
        ):
            headers = {"content-type": kind} if kind else {}
            assert (await client.request("PUT", f"s{number}", headers)).status == status
        assert (await client.request("PUT", "fork", {"stream-forked-from": "/v1/stream/a"})).status == 201
    with override_streams(CONTENT_TYPES=["application/octet-stream"]):
        assert (await client.request("PUT", "plain", {})).status == 201
