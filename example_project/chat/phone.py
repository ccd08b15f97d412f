"""The link of a chat for other devices, also as a QR code."""

from typing import NamedTuple

import segno
from django.conf import settings
from django.http import HttpRequest
from django.utils.safestring import SafeString, mark_safe

LOOPBACK = ("127.", "localhost", "[::1]")


class Link(NamedTuple):
    url: str
    is_local: bool
    """Whether only this machine can open it."""


def address_for_others(request: HttpRequest, path: str) -> Link:
    url = settings.PUBLIC_URL + path if settings.PUBLIC_URL else request.build_absolute_uri(path)
    return Link(url, url.partition("//")[2].startswith(LOOPBACK))


def qr_code(text: str) -> SafeString:
    """An SVG element. It has no colours, which are in the style sheet."""
    svg = segno.make(text, micro=False).svg_inline(border=2, omitsize=True, svgclass="qr", lineclass="ink")
    return mark_safe(svg)
