"""Protection of browsers against active content in streams (specification, sections 12.3 and 12.7).

The creator of a stream chooses its content type, and its bytes come from any client that may append. A browser that
opens the URL must not run them with the rights of the site: no HTML, SVG or XHTML, no XML with a stylesheet, no PDF.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from . import headers
from .content import essence
from .errors import Header, PermissionDenied

NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
"""The browser must not guess another content type."""

SANDBOX: Header = (b"content-security-policy", b"sandbox; default-src 'none'; style-src 'unsafe-inline'")
"""A document from the response has its own origin, runs no script, sends no form and loads nothing. Inline styles are
allowed, because browsers use them to show text, images and sound."""

_CODE_DESTINATIONS = frozenset(
    {b"script", b"worker", b"sharedworker", b"serviceworker", b"audioworklet", b"paintworklet", b"xslt", b"style"}
)
"""Values of `Sec-Fetch-Dest` with which a browser would run the response as code of a page. Stylesheets count, because
they can send data of the page to another site."""

_SHOWN_PREFIXES = ("text/", "image/", "audio/", "video/")
_SHOWN_SUFFIXES = ("+json", "+xml", "/json", "/xml")

_ATTACHMENT: list[Header] = [(headers.CONTENT_DISPOSITION, b"attachment")]
_INLINE: list[Header] = []


def check_destination(request_headers: Mapping[bytes, bytes]) -> None:
    """Check that a browser does not request a stream as a page's script, worker or stylesheet.

    No response header prevents this in all browsers, so the request's own Fetch Metadata decide.

    Args:
        request_headers: by lower-case name.

    Raises:
        PermissionDenied: the browser would run the stream as code.
    """
    if request_headers.get(b"sec-fetch-dest") in _CODE_DESTINATIONS or b"service-worker" in request_headers:
        raise PermissionDenied("Streams are data. A page reads them with fetch, and does not run them as code.")


@lru_cache(maxsize=256)
def disposition(content_type: str) -> list[Header]:
    """Return the headers that let a browser show a body of a content type, or make it save the body.

    It may show the types that it renders itself, in the sandbox. Other types go to viewers or plugins with rules of
    their own. Examples are PDF, under each of its names, and `multipart/x-mixed-replace`.
    """
    kind = essence(content_type)
    is_shown = kind.startswith(_SHOWN_PREFIXES) or kind.endswith(_SHOWN_SUFFIXES)
    return _INLINE if is_shown and not kind.endswith("pdf") else _ATTACHMENT
