"""The hosts that the setting WEBHOOK_ALLOWED_HOSTS exempts from the rules for webhooks. Knows neither URLs nor DNS."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_NAME_LENGTH = 253
"""Characters of a host name (RFC 1035)."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")

# Resolvers and browsers read such a last label as a number, and the whole name as an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class AllowedHosts(NamedTuple):
    """The entries of WEBHOOK_ALLOWED_HOSTS, taken apart."""

    names: frozenset[str]
    suffixes: tuple[str, ...]
    """Each with its leading dot."""
    networks: tuple[Network, ...]

    def has_host(self, host: str) -> bool:
        """Return whether a host of a URL, in small letters and without brackets, is exempt by its name or address."""
        if host in self.names or any(f".{host}".endswith(suffix) for suffix in self.suffixes):
            return True
        try:
            return self.has_address(ip_address(host))
        except ValueError:
            return False

    def has_address(self, address: Address) -> bool:
        """Return whether an address is exempt."""
        return any(address.version == network.version and address in network for network in self.networks)


@lru_cache(maxsize=8)
def allowed_hosts(entries: tuple[str, ...]) -> AllowedHosts:
    """Return the entries of WEBHOOK_ALLOWED_HOSTS, taken apart.

    Args:
        entries: host names, `.suffixes` that stand for a domain and all names below it, addresses and networks.

    Raises:
        ValueError: an entry is none of these.
    """
    names: set[str] = set()
    suffixes: list[str] = []
    networks: list[Network] = []
    for entry in entries:
        if is_host_name(entry):
            names.add(entry.lower())
        elif entry.startswith(".") and is_host_name(entry[1:]):
            suffixes.append(entry.lower())
        else:
            networks.append(_network(entry))
    return AllowedHosts(frozenset(names), tuple(suffixes), tuple(networks))


def _network(entry: str) -> Network:
    try:
        return ip_network(entry)
    except ValueError:
        raise ValueError(
            f"{entry!r} is no host name, no .suffix of names, no address and no network. Write it without scheme, port "
            "and brackets, and international names in their ASCII form (xn--...)."
        ) from None


def is_host_name(text: str) -> bool:
    """Return whether a text is a name for DNS, in ASCII: no address in any notation, and without a dot at its end."""
    if len(text) > MAX_NAME_LENGTH or _NAME.fullmatch(text) is None:
        return False
    return _NUMBER.fullmatch(text.rpartition(".")[2]) is None
