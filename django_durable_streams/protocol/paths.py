"""Stream paths: what may stand in a URL behind the root of the streams (specification, sections 6 and 12.2)."""

from __future__ import annotations

import re
from functools import lru_cache

from .errors import InvalidPath, StreamNotFound

MAX_PATH_LENGTH = 512
"""Characters. It keeps the path inside what every database can index."""

CONTROL_SEGMENT = "__ds"
"""First segment of paths that are control APIs, never streams."""

# Control characters, the backslash that some proxies turn into a slash, the mark that servers put where a URL was not
# UTF-8 (two different URLs would meet in one stream), and halves of surrogate pairs, which no database stores.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\\\\\ufffd\ud800-\udfff]")
# A first, middle or last segment that is empty or made of dots only up to "..".
_TRAVERSAL = re.compile(r"(?:^|/)(?:\.{1,2})?(?:/|$)")
# What has none of these at a glance, as most paths: segments that begin with a letter or a digit.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@=+-]*(?:/[A-Za-z0-9][A-Za-z0-9._~:@=+-]*)*")


def validate(path: str) -> str:
    """Return a stream-root-relative path, percent-decoded, if a stream can have it.

    Raises:
        InvalidPath: empty, over 512 characters, with empty, `.` or `..` segments, or forbidden characters.
        StreamNotFound: it lies in the reserved control namespace.
    """
    if not path or len(path) > MAX_PATH_LENGTH:
        raise InvalidPath(f"A stream path has 1 to {MAX_PATH_LENGTH} characters.")
    if _PLAIN.fullmatch(path) is not None:
        return path
    if _FORBIDDEN.search(path) is not None:
        raise InvalidPath("A stream path has no control characters and no backslash, and is UTF-8.")
    if _TRAVERSAL.search(path) is not None:
        raise InvalidPath("A stream path has no empty segments and none that is . or .., and no slash at its ends.")
    if path == CONTROL_SEGMENT or path.startswith(CONTROL_SEGMENT + "/"):
        raise StreamNotFound(f"Paths below {CONTROL_SEGMENT}/ are reserved for control APIs.")
    return path


validate_again = lru_cache(maxsize=4096)(validate)
"""The same for paths that come again and again: those of streams that are there."""
