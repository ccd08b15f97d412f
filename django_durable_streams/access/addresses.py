"""Whose address a request came from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from django.http import HttpRequest

from ..conf import config

logger = logging.getLogger("django_durable_streams.access")

UNKNOWN = "unknown"
"""The address of a client without one, as behind a Unix socket."""


MAX_BYTES = 1024
"""What is looked at of the header, from its end: twenty addresses and more. A client can send thousands."""


def client_address(source: Mapping[str, Any] | HttpRequest, forwarded: bytes | None) -> str:
    """Return the address of a request's client.

    Some servers put an address out of `X-Forwarded-For` in the place of the peer's, as uvicorn does by default for what
    comes from this machine. That says only that somebody has sent the header. So where the peer's address is one of
    the header's, it counts for no more than the header.

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
    if forwarded is None:
        return peer or UNKNOWN
    if len(forwarded) > MAX_BYTES:
        if peer and not _is_in(peer, networks(proxies)):
            return UNKNOWN  # it may be one that is further in front
        forwarded = forwarded[-MAX_BYTES:].partition(b",")[2]
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
    hops = [_without_port(part.strip()) for part in reversed(forwarded.split(","))]
    is_rewritten = _same(peer) in map(_same, hops)
    if not proxies:
        if not is_rewritten:
            return peer or UNKNOWN
        _warn()
        return UNKNOWN
    if not is_rewritten and peer:
        hops.insert(0, peer)
    # A peer without an address is at the other end of a Unix socket: a proxy on this machine.
    known = networks(proxies)
    for address in hops:
        if not _is_in(address, known):
            return address or UNKNOWN
    return hops[-1]


def _is_in(address: str, known: list[IPv4Network | IPv6Network]) -> bool:
    try:
        found = ip_address(_same(address))
    except ValueError:
        return False
    return any(found.version == network.version and found in network for network in known)


def _same(address: str) -> str:
    """Return one way to write an address: on a socket for both, those of IPv4 are written as addresses of IPv6."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.compressed
    return found.compressed


def _without_port(part: str) -> str:
    """Return the address in a part of the header, which some proxies write with a port or in brackets."""
    if part.startswith("["):
        return part[1:].partition("]")[0]
    return part.partition(":")[0] if part.count(":") == 1 else part


@lru_cache(maxsize=1)
def _warn() -> None:
    """Say once in each process what is missing."""
    logger.warning(
        "Requests come through a proxy, as X-Forwarded-For says, and TRUSTED_PROXIES is empty. Their clients have no "
        "addresses here, and are counted as one. Name the proxies in DURABLE_STREAMS['TRUSTED_PROXIES']."
    )
