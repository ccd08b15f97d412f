"""What keeps a browser from running what a stream holds (specification, sections 12.3 and 12.7).

A stream has the content type that its creator chose, and its bytes come from whoever may append. A browser that opens
its URL must not run them with the rights of the site: not HTML, SVG or XHTML, not XML with a stylesheet, not a PDF.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from .content import essence
from .errors import Header, PermissionDenied

NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
"""The content type is what it says."""

SANDBOX: Header = (b"content-security-policy", b"sandbox; default-src 'none'; style-src 'unsafe-inline'")
"""A document made of the response has an origin of its own, runs no script, sends no form and loads nothing. The styles
are those with which browsers show text, images and sound."""

_CODE = frozenset(
    {b"script", b"worker", b"sharedworker", b"serviceworker", b"audioworklet", b"paintworklet", b"xslt", b"style"}
)
"""What a browser says it wants a response for, where it would run it for the page that names it. Styles can send what
stands in a page to another site."""

_SHOWN = ("text/", "image/", "audio/", "video/")
_SHOWN_SUFFIXES = ("+json", "+xml", "/json", "/xml")

_ATTACHMENT: list[Header] = [(b"content-disposition", b"attachment")]
_INLINE: list[Header] = []


def check_destination(found: Mapping[bytes, bytes]) -> None:
    """See that a browser does not ask for a stream to run it as a page's script, worker or stylesheet.

    No header of a response says so to all browsers, so the request is judged by what it is for (Fetch Metadata).

    Args:
        found: the request's headers.

    Raises:
        PermissionDenied: it does.
    """
    if found.get(b"sec-fetch-dest") in _CODE or b"service-worker" in found:
        raise PermissionDenied("Streams are data. A page reads them with fetch, and does not run them as code.")


@lru_cache(maxsize=256)
def disposition(content_type: str) -> list[Header]:
    """Return the headers that say whether a browser may show a body of a content type, or is to save it.

    It may show what it does by itself, in the sandbox. Everything else would go to a viewer or plugin with rules of its
    own, as PDF, under each of its names, and `multipart/x-mixed-replace` do.
    """
    kind = essence(content_type)
    is_shown = kind.startswith(_SHOWN) or kind.endswith(_SHOWN_SUFFIXES)
    return _INLINE if is_shown and not kind.endswith("pdf") else _ATTACHMENT
