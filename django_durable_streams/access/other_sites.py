"""Session cookies and pages of other sites: browsers do not send one with `SESSION_COOKIE_SAMESITE` Lax or Strict.

With None, many browsers block it there as a third-party cookie: Safari, and others in private windows.

For words in the log and for a system check. It decides nothing, so it may leave out what it cannot know: which suffixes
of host names are public, such as `co.uk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from django.conf import settings

from ..protocol import headers

COMMON_LABELS = 2
"""Hosts with so many last labels in common may be one site."""


def cookie_limit() -> str:
    """Return the value of SESSION_COOKIE_SAMESITE that keeps the cookie from pages of other sites. Empty: none does."""
    value = str(settings.SESSION_COOKIE_SAMESITE or "").capitalize()
    return value if value in ("Lax", "Strict") else ""


def host_of(origin: str) -> str:
    """Return the host of an origin such as `https://app.example.org:8000`. Empty: it has none."""
    try:
        return (urlsplit(origin).hostname or "").rstrip(".")
    except ValueError:
        return ""


def are_surely_apart(host: str, other: str) -> bool:
    """Return whether two hosts, without ports, are two sites whatever suffixes are public."""
    if host == other or host.endswith(f".{other}") or other.endswith(f".{host}"):
        return False
    if _is_address(host) or _is_address(other):
        return True
    return host.split(".")[-COMMON_LABELS:] != other.split(".")[-COMMON_LABELS:]


def cookie_hint(request_headers: Mapping[bytes, bytes]) -> str:
    """Return a sentence about a request without a session cookie. Empty: its page is of this site, or none is known."""
    limit, origin = cookie_limit(), request_headers.get(headers.ORIGIN, b"").decode("latin-1")
    host = host_of(origin)
    if not host:
        return ""
    # Current browsers say what they know. A proxy may have changed the Host.
    site = request_headers.get(b"sec-fetch-site")
    own = host_of(f"//{request_headers.get(b'host', b'').decode('latin-1')}")
    if site != b"cross-site" if site is not None else not own or not are_surely_apart(host, own):
        return ""
    page = f"Its page is of another site ({host})"
    if limit:
        return f"{page}, and SESSION_COOKIE_SAMESITE = {limit!r} keeps the cookie from there."
    return f"{page}, and the browser may block cookies of other sites. A signed URL or a token needs no cookie."


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
