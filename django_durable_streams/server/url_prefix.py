"""Finds a setting URL_PREFIX that leads elsewhere than to the streams: links in pages and webhooks would be wrong.

A proxy may serve the streams at a longer path than this server sees. So the path of URL_PREFIX has to end with the root
of the streams here, and everything before it is the proxy's.
"""

from __future__ import annotations

import logging
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.urls import NoReverseMatch, reverse

from ..conf import config

logger = logging.getLogger(__name__)

_is_checked = False


def check_at_start(prefix: str | None) -> None:
    """Log that links do not lead to the streams of the ASGI application, or of the URLs. Imports the project's URLs.

    Args:
        prefix: the path below which the application has its streams. None: it may have some at any path.
    """
    if prefix is not None and config().url_prefix:
        _check([prefix, *_roots_of_urls()])


def check_urls() -> None:
    """Log once that links do not lead to the streams of the URLs, at the first request to them."""
    if not _is_checked and config().url_prefix:
        _check(_roots_of_urls())


def _roots_of_urls() -> list[str]:
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    try:
        return [reverse("durable_streams:root")]
    except NoReverseMatch:
        return []
    except Exception as error:  # of the project's URLs, which Django reports with the first request to them
        logger.debug("The URLs of the project cannot be imported: %s", error)
        return []


def _check(roots: list[str]) -> None:
    global _is_checked
    _is_checked = True
    prefix = config().url_prefix
    if roots and not any(leads_to(prefix, root) for root in roots):
        logger.warning(
            "URL_PREFIX is %r, but this server has its streams below %s. Unless another server has them there, links "
            "to streams lead nowhere. Set URL_PREFIX to the URL at which clients reach the streams, or remove it.",
            prefix,
            " and ".join(roots),
        )


def leads_to(prefix: str, root: str) -> bool:
    """Return whether links with a prefix can lead to streams below a root."""
    return unquote(urlsplit(prefix).path).endswith(root)
