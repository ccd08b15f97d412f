"""Whose address a request came from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from django.http import HttpRequest

from ..conf import config

UNKNOWN = "unknown"
"""The address of a client without one, as behind a Unix socket."""


def client_address(source: Mapping[str, Any] | HttpRequest, forwarded: bytes | None) -> str:
    """Return the address of a request's client.

    Args:
        source: the ASGI scope, or Django's request.
        forwarded: `X-Forwarded-For`, which is believed as far as it was written by TRUSTED_PROXIES.
    """
    if isinstance(source, HttpRequest):
        peer = source.META.get("REMOTE_ADDR") or ""
    else:
        client = source.get("client")
        peer = client[0] if client else ""
    proxies = config().trusted_proxies
    if not proxies or forwarded is None:
        return peer or UNKNOWN
    return _behind(peer, forwarded.decode("latin-1"), proxies)


def networks(proxies: tuple[str, ...]) -> list[IPv4Network | IPv6Network]:
    """Return the networks that a setting names.

    Raises:
        ValueError: one is neither a network nor an address.
    """
    return [ip_network(proxy, strict=False) for proxy in proxies]


@lru_cache(maxsize=1024)
def _behind(peer: str, forwarded: str, proxies: tuple[str, ...]) -> str:
    """Return the nearest address that is no proxy of ours. Each proxy writes down, on the right, whom it heard from."""
    known = networks(proxies)

    def trusted(address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found.version == network.version and found in network for network in known)

    # A peer without an address is at the other end of a Unix socket: a proxy on this machine.
    nearest = peer
    for address in reversed([part.strip() for part in forwarded.split(",")]):
        if nearest and not trusted(nearest):
            break
        nearest = address
    return nearest or UNKNOWN
