"""Whose address a request came from, behind each kind of server and proxy."""

import logging
from typing import Any

import pytest
from django.core.cache import caches
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from django_durable_streams.access import addresses, rates
from django_durable_streams.access.addresses import client_address
from django_durable_streams.models import Stream
from django_durable_streams.server.asgi import DurableStreams, Receive, Scope, Send
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

PROXY = ["127.0.0.1"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "expected"),
    [
        # The server has put an address of the header in the place of the peer's: that proves nothing.
        ("192.0.2.9", "192.0.2.9", [], "unknown"),
        ("192.0.2.9", "192.0.2.9, 198.51.100.1", [], "unknown"),
        ("192.0.2.9", "192.0.2.9", PROXY, "192.0.2.9"),
        ("192.0.2.9", "192.0.2.9, 198.51.100.1", PROXY, "198.51.100.1"),
        ("192.0.2.9", "192.0.2.9, 198.51.100.1, 127.0.0.1", PROXY, "198.51.100.1"),
        ("198.51.100.1", "192.0.2.9, 198.51.100.1", PROXY, "198.51.100.1"),
        ("192.0.2.9", "192.0.2.9:4711", PROXY, "192.0.2.9"),
        ("2001:db8::1", "[2001:db8::1]:4711", PROXY, "2001:db8::1"),
        # It has not, and the peer is a proxy or is none.
        ("127.0.0.1", "192.0.2.9, 198.51.100.1", PROXY, "198.51.100.1"),
        ("127.0.0.1", "192.0.2.9, 198.51.100.1", [], "127.0.0.1"),
        ("203.0.113.1", "192.0.2.9", PROXY, "203.0.113.1"),
        # A chain of proxies, all of which are ours, or not.
        ("127.0.0.1", "192.0.2.9, 198.51.100.1, 10.0.0.8", [*PROXY, "10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.8", "192.0.2.9, 198.51.100.1, 10.0.0.8", [*PROXY, "10.0.0.0/8"], "198.51.100.1"),
        ("127.0.0.1", "192.0.2.9, 198.51.100.1, 10.0.0.8", PROXY, "10.0.0.8"),
        # Unix sockets have no address; sockets for both kinds of addresses write those of IPv4 as the others.
        ("", "192.0.2.9, 198.51.100.1", PROXY, "198.51.100.1"),
        ("", "192.0.2.9", [], "unknown"),
        ("::ffff:127.0.0.1", "192.0.2.9", PROXY, "192.0.2.9"),
        ("::ffff:127.0.0.1", "192.0.2.9", ["::1"], "::ffff:127.0.0.1"),
        ("::1", "192.0.2.9", ["::1"], "192.0.2.9"),
        # With ports, in brackets, or no addresses at all.
        ("127.0.0.1", "198.51.100.1:4711", PROXY, "198.51.100.1"),
        ("127.0.0.1", "[2001:db8::1]:4711", PROXY, "2001:db8::1"),
        ("127.0.0.1", "[2001:db8::1]", PROXY, "2001:db8::1"),
        ("127.0.0.1", "192.0.2.9, unknown", PROXY, "unknown"),
        ("127.0.0.1", "192.0.2.9, ", PROXY, "unknown"),
        ("127.0.0.1", "127.0.0.1, 127.0.0.1", PROXY, "127.0.0.1"),
        # Longer than anybody has proxies: what the nearest proxy has written, if it is that one who sends it.
        ("127.0.0.1", "192.0.2.9," * 1000 + "198.51.100.1", PROXY, "198.51.100.1"),
        ("", "192.0.2.9," * 1000 + "198.51.100.1", PROXY, "198.51.100.1"),
        ("192.0.2.9", "192.0.2.9," * 1000 + "198.51.100.1", PROXY, "unknown"),
        ("192.0.2.9", "192.0.2.9," + "192.0.2.8," * 1000 + "198.51.100.1", PROXY, "unknown"),
        ("203.0.113.1", "192.0.2.9," * 1000 + "192.0.2.9", [], "unknown"),
        ("127.0.0.1", "1" * 5000, PROXY, "unknown"),
    ],
)
def test_addresses(peer: str, forwarded: str, proxies: list[str], expected: str) -> None:
    for scope in ({"client": (peer, 1) if peer else None}, {"client": [peer, 0] if peer else None}):
        with override_streams(TRUSTED_PROXIES=proxies):
            assert client_address(scope, forwarded.encode()) == expected


@pytest.mark.parametrize("part", ["1", "::1", "127.0.0.1", ":", "[", "\u00b2"])
def test_no_header_costs_more_than_its_end(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    same = addresses._normalized
    monkeypatch.setattr(addresses, "_normalized", lambda address: read.append(address) or same(address))
    addresses._nearest_client.cache_clear()
    with override_streams(TRUSTED_PROXIES=PROXY):
        client_address({"client": ("127.0.0.1", 1)}, ",".join([part] * 30_000).encode("latin-1"))
    assert len(read) < 2500
    assert sum(map(len, read)) < 10_000


def test_what_is_missing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    addresses._warn_about_proxies.cache_clear()
    addresses._nearest_client.cache_clear()
    with caplog.at_level(logging.WARNING), override_streams(TRUSTED_PROXIES=[]):
        for number in range(3):
            address = f"192.0.2.{number}"
            client_address({"client": (address, 0)}, address.encode())
    assert [record.message.count("TRUSTED_PROXIES") for record in caplog.records] == [2]


class Nginx:
    """A proxy on this machine in front of an application, which does with the header what its configuration says."""

    def __init__(self, application: Any, sets: str) -> None:
        self._application = application
        self._sets = sets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = dict(scope["headers"])[b"x-real"].decode()
        header_lines = [(name, value) for name, value in scope["headers"] if name != b"x-real"]
        client = [value for name, value in header_lines if name == b"x-forwarded-for"]
        if self._sets != "nothing":
            header_lines = [(name, value) for name, value in header_lines if name != b"x-forwarded-for"]
            whole = [*client, peer.encode()] if self._sets == "append" else [peer.encode()]
            header_lines.append((b"x-forwarded-for", b", ".join(whole)))
        await self._application({**scope, "client": ("127.0.0.1", 40_000), "headers": header_lines}, receive, send)


# What nginx does, which addresses uvicorn trusts, TRUSTED_PROXIES, and whether honest clients are told apart.
SETUPS = [
    ("overwrite", "127.0.0.1", PROXY, True),
    ("append", "127.0.0.1", PROXY, True),
    ("overwrite", "*", PROXY, True),
    ("append", "*", PROXY, True),
    ("overwrite", "", PROXY, True),
    ("append", "", PROXY, True),
    ("overwrite", "127.0.0.1", [], False),
    ("append", "127.0.0.1", [], False),
    ("append", "*", [], False),
    ("nothing", "127.0.0.1", [], False),
    ("nothing", "*", [], False),
    ("nothing", "", [], False),
]


@pytest.mark.parametrize(("sets", "trusts", "proxies", "tells_apart"), SETUPS)
async def test_nobody_escapes_a_limit_by_a_header(
    sets: str,
    trusts: str,
    proxies: list[str],
    tells_apart: bool,
    engines: None,
    transactional_db: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rates.time, "time", lambda: 1_800_000_000.0 + 1800)  # type: ignore[attr-defined]
    caches["default"].clear()
    await Stream.objects.acreate(path="a", content_type="text/plain")
    application: Any = DurableStreams()
    if trusts:
        application = ProxyHeadersMiddleware(application, trusted_hosts=trusts)
    client = AsgiClient(Nginx(application, sets))

    async def ask(address: str, claim: str | None = None) -> int:
        headers = {"x-real": address, **({"x-forwarded-for": claim} if claim is not None else {})}
        return (await client.request("GET", "a", headers)).status

    with override_streams(RATE_LIMITS={"read": "2/h"}, TRUSTED_PROXIES=proxies):
        claims = ["192.0.2.1", "192.0.2.2, 192.0.2.3", "127.0.0.1", "192.0.2.4:80", "[2001:db8::1]:80"]
        statuses = [await ask("198.51.100.66", claim) for claim in claims]
        assert statuses[:2] == [200, 200]
        # With nothing set and nothing rewritten there are two counts: the proxy's, and that of what may be rewritten.
        assert statuses.count(200) <= 4 if not tells_apart else statuses == [200, 200, 429, 429, 429]
        assert [await ask("198.51.100.66", f"203.0.113.{number}") for number in range(9)].count(200) == 0
        if tells_apart:
            assert [await ask("198.51.100.7"), await ask("198.51.100.7"), await ask("198.51.100.7")] == [200, 200, 429]
    caches["default"].clear()
