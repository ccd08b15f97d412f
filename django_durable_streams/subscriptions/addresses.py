"""Which URLs and addresses webhooks may go to, so that a subscription is no way into the server's own network.

A URL is taken apart once, by a grammar without exceptions: whatever two parsers could read in two ways is refused. The
connection is made from the parts that were checked, and never from the text. A name says nothing about its addresses,
and may have others tomorrow, so `resolve_checked` checks each address that a name has when a webhook is sent.

The settings may exempt hosts (WEBHOOK_ALLOWED_HOSTS, and DEBUG for this machine), but never link-local addresses and
the metadata services of clouds: they give credentials of the machine to everybody who can send a request from it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from django.conf import settings

from ..access.webhook_hosts import Address, AllowedHosts, allowed_hosts, is_host_name
from ..conf import config
from ..protocol.subscriptions import MAX_URL_LENGTH, webhook_url_rejected
from . import extra

DEFAULT_PORTS = {"https": 443, "http": 80}
FIRST_UNPRIVILEGED_PORT = 1024

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?P<fragment>#.*)?", re.ASCII
)
_AUTHORITY = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
_TARGET = re.compile(r"(?:[A-Za-z0-9\-._~/?:@!$&'()*+,;=\[\]]|%[0-9A-Fa-f]{2})*", re.ASCII)

LOCAL_DOMAINS = (
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "svc",
    "home.arpa",
    "in-addr.arpa",
    "ip6.arpa",
    "onion",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
)
"""Names of private networks (RFC 6761, 6762, 8375, and usage), and of metadata services, which have a public suffix."""

METADATA_ADDRESSES = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # most clouds
            "fd00:ec2::254",  # Amazon: metadata, the resolver, and credentials of pods
            "fd00:ec2::253",
            "fd00:ec2::23",
            "fd20:ce::254",  # Google
            "fd00:42::42",  # Scaleway
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "168.63.129.16",  # Azure, from its machines only
        ),
    )
)

_LINK_LOCAL = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"))

_METADATA = frozenset(map(int, METADATA_ADDRESSES))
"""As numbers, because an address with a zone is unequal to the same address without it."""

_SPECIAL_IPV4 = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
"""The special-purpose registry of IANA, multicast and reserved addresses. Python's own lists differ by its version."""

_GLOBAL_IPV6 = ip_network("2000::/3")
_SPECIAL_IPV6 = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")))
"""Inside of the global addresses: Teredo, benchmarking, ORCHID and others; documentation; 6to4; AS112."""

_NAT64 = ip_network("64:ff9b::/96")


class Reach(Enum):
    """Which addresses a URL may lead to."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    """Public ones and this machine, for its own name in development."""
    ANY = "any"


class Target(NamedTuple):
    """A checked URL in parts: exactly what a request is made from."""

    scheme: str
    host: str
    """A name in small letters, or an address without brackets."""
    port: int
    path: str
    """The path with the query."""
    reach: Reach

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def literal(self) -> Address | None:
        """The address, if the host is one."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


def check_url(url: str) -> None:
    """Check the URL of a new webhook subscription. Its name is not resolved yet.

    Raises:
        SubscriptionError: webhooks may not go there (400), or packages for webhooks are missing (501).
    """
    extra.require()
    parse_url(url)


def parse_url(url: str) -> Target:
    """Return the parts of a webhook's URL.

    Raises:
        SubscriptionError: webhooks may not go there, whatever the addresses of its name are (400).
    """
    if len(url) > MAX_URL_LENGTH:
        raise webhook_url_rejected(f"The webhook URL has more than {MAX_URL_LENGTH} characters.")
    match = _URL.fullmatch(url)
    if match is None:
        raise webhook_url_rejected("The webhook URL is not an absolute URL.")
    scheme, authority = match["scheme"].lower(), match["authority"]
    if scheme not in DEFAULT_PORTS:
        raise webhook_url_rejected("The webhook URL must begin with https://.")
    if match["fragment"] is not None:
        raise webhook_url_rejected("The webhook URL must have no fragment (#).")
    if _TARGET.fullmatch(match["target"]) is None:
        raise webhook_url_rejected("The path or query of the webhook URL has characters that must be percent-encoded.")
    host, port = _host_and_port(authority, scheme)
    reach = _reach(scheme, host, allowed_hosts(config().webhook_allowed_hosts))
    if reach is Reach.PUBLIC and port != DEFAULT_PORTS["https"] and port < FIRST_UNPRIVILEGED_PORT:
        raise webhook_url_rejected("The port of the webhook URL must be 443, or 1024 and above.")
    path = match["target"]
    target = Target(scheme, host, port, path if path.startswith("/") else f"/{path}", reach)
    if target.literal is not None and not is_allowed(target.literal, reach):
        raise webhook_url_rejected("The address in the webhook URL is not a public one.")
    return target


def receiver_of(url: str) -> str:
    """Return host and port of a URL, which all URLs of a receiver have in common, whatever the settings allow.

    Raises:
        SubscriptionError: the URL is not one of a webhook (400).
    """
    match = _URL.fullmatch(url)
    scheme = match["scheme"].lower() if match is not None else ""
    if match is None or scheme not in DEFAULT_PORTS:
        raise webhook_url_rejected("The webhook URL must begin with https://.")
    host, port = _host_and_port(match["authority"], scheme)
    return f"{host}:{port}"


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    if "@" in authority:
        raise webhook_url_rejected("The webhook URL must have no user name and password.")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise webhook_url_rejected(
            "The host of the webhook URL is not valid. Write international names in their ASCII form (xn--...), and "
            "IPv6 addresses in brackets and without a zone."
        )
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    if not 0 < port < 65536:
        raise webhook_url_rejected("The port of the webhook URL is not valid.")
    return _host(match["ipv6"], match["host"]), port


def _host(ipv6: str | None, text: str | None) -> str:
    """Return a host in its one normal form."""
    if text is not None and is_host_name(text):
        return text.lower()
    try:
        # Only four decimal numbers without leading zeros: resolvers read other notations in different ways.
        return str(IPv6Address(ipv6) if ipv6 is not None else IPv4Address(text or ""))
    except ValueError:
        raise webhook_url_rejected("The host of the webhook URL is neither a name nor an address.") from None


def _reach(scheme: str, host: str, exempt: AllowedHosts) -> Reach:
    """Return which addresses a host may have.

    Raises:
        SubscriptionError: the host is local, or needs HTTPS.
    """
    if exempt.has_host(host):
        return Reach.ANY
    if settings.DEBUG and _is_this_machine(host):
        return Reach.LOOPBACK
    if scheme != "https":
        raise webhook_url_rejected("The webhook URL must begin with https://.")
    if is_host_name(host) and ("." not in host or any(f".{host}".endswith(f".{name}") for name in LOCAL_DOMAINS)):
        raise webhook_url_rejected("The host of the webhook URL is a name of a private network.")
    return Reach.PUBLIC


def _is_this_machine(host: str) -> bool:
    """Return whether a host is what the specification excepts in development: localhost, or 127.0.0.0/8."""
    if is_host_name(host):
        return host == "localhost"
    address = ip_address(host)
    return address.version == 4 and address.is_loopback


def is_allowed(address: Address, reach: Reach = Reach.PUBLIC) -> bool:
    """Return whether a webhook may be sent to an address."""
    if any(_is_never_allowed(part) for part in (address, *_embedded(address))):
        return False
    if reach is Reach.ANY or is_public(address) or allowed_hosts(config().webhook_allowed_hosts).has_address(address):
        return True
    return reach is Reach.LOOPBACK and address.is_loopback


def _is_never_allowed(address: Address) -> bool:
    return int(address) in _METADATA or any(address in network for network in _LINK_LOCAL)


def is_public(address: Address) -> bool:
    """Return whether an address belongs to the public internet, so that everybody can send a request to it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    if address in _NAT64:  # how a machine without IPv4 reaches the public internet
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_IPV6 and not any(address in network for network in _SPECIAL_IPV6)


def _embedded(address: Address) -> Iterable[Address]:
    """Return the IPv4 addresses to which some network may translate an IPv6 address."""
    if isinstance(address, IPv4Address):
        return ()
    value = int(address)
    parts = [IPv4Address(value & 0xFFFFFFFF)]  # mapped, compatible, NAT64, ISATAP
    if address.sixtofour is not None:
        parts.append(address.sixtofour)
    if address.teredo is not None:
        parts.extend(address.teredo)
    return parts


async def resolve_checked(target: Target, resolve: Callable[[str, int], Awaitable[list[Address]]]) -> list[Address]:
    """Return the addresses of a target, in the order in which to try them. All of them are allowed.

    One address that is not allowed refuses the whole name: its owner wants this server to send requests inside.

    Args:
        target: the checked URL.
        resolve: returns all addresses of a name.

    Raises:
        SubscriptionError: an address is not allowed (400).
        OSError: the name has no address, or the resolver does not answer.
    """
    literal = target.literal
    addresses = [literal] if literal is not None else list(dict.fromkeys(await resolve(target.host, target.port)))
    if not addresses:
        raise OSError(f"{target.host} has no address.")
    if not all(is_allowed(address, target.reach) for address in addresses):
        raise webhook_url_rejected("The host of the webhook URL has an address that is not a public one.")
    return addresses
