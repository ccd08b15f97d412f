"""The address of a request's client, also behind proxies. It does not know what the address is used for."""

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
"""Stands for the address of a client that has none, as behind a Unix socket."""

MAX_HEADER_BYTES = 1024
"""Bytes of `X-Forwarded-For` that are read, from its end: more than twenty addresses. A client can send thousands."""


def client_address(source: Mapping[str, Any] | HttpRequest, forwarded: bytes | None) -> str:
    """Return the address of a request's client.

    Some servers replace the peer's address by one of `X-Forwarded-For`. Uvicorn does so by default for requests from
    its own machine. Such an address is as credible as the header, and not more. So a peer's address that is also in
    the header counts as a part of the header.

    Args:
        source: the ASGI scope, or Django's request.
        forwarded: the header `X-Forwarded-For`. Only the part that `TRUSTED_PROXIES` have written counts.
    """
    if isinstance(source, HttpRequest):
        peer = source.META.get("REMOTE_ADDR") or ""
    else:
        client = source.get("client")
        peer = client[0] if client else ""
    proxies = config().trusted_proxies
    if forwarded is None:
        return peer or UNKNOWN
    if len(forwarded) > MAX_HEADER_BYTES:
        if peer and not _is_in(peer, networks(proxies)):
            return UNKNOWN  # the peer may be a client that a server has read from the header
        forwarded = forwarded[-MAX_HEADER_BYTES:].partition(b",")[2]
    return _nearest_client(peer, forwarded.decode("latin-1"), proxies)


def networks(proxies: tuple[str, ...]) -> list[IPv4Network | IPv6Network]:
    """Return the networks of a list of networks and addresses.

    Raises:
        ValueError: an entry is neither a network nor an address.
    """
    return [ip_network(proxy, strict=False) for proxy in proxies]


@lru_cache(maxsize=1024)
def _nearest_client(peer: str, forwarded: str, proxies: tuple[str, ...]) -> str:
    """Return the nearest address that is no trusted proxy. Each proxy adds the address of its peer on the right."""
    hops = [_without_port(part.strip()) for part in reversed(forwarded.split(","))]
    is_rewritten = _normalized(peer) in map(_normalized, hops)
    if not proxies:
        if not is_rewritten:
            return peer or UNKNOWN
        _warn_about_proxies()
        return UNKNOWN
    if not is_rewritten and peer:
        hops.insert(0, peer)
    # A peer without an address uses a Unix socket, so it is a proxy on this machine.
    proxy_networks = networks(proxies)
    for address in hops:
        if not _is_in(address, proxy_networks):
            return address or UNKNOWN
    return hops[-1]


def _is_in(address: str, networks_to_search: list[IPv4Network | IPv6Network]) -> bool:
    try:
        ip = ip_address(_normalized(address))
    except ValueError:
        return False
    return any(ip.version == network.version and ip in network for network in networks_to_search)


def _normalized(address: str) -> str:
    """Return the standard form of an address. Sockets for both versions write IPv4 addresses as IPv6 addresses."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.compressed
    return ip.compressed


def _without_port(part: str) -> str:
    """Return an address of the header without its port and its brackets, which some proxies write."""
    if part.startswith("["):
        return part[1:].partition("]")[0]
    return part.partition(":")[0] if part.count(":") == 1 else part


@lru_cache(maxsize=1)
def _warn_about_proxies() -> None:
    """Log once in each process that TRUSTED_PROXIES is missing."""
    logger.warning(
        "Requests come through a proxy, as X-Forwarded-For shows, but TRUSTED_PROXIES is empty. The addresses of their "
        "clients are unknown, and all of them count as one client. Name the proxies in "
        "DURABLE_STREAMS['TRUSTED_PROXIES']."
    )
