"""Rules for the paths of streams (specification, sections 6 and 12.2)."""

from __future__ import annotations

import re
from functools import lru_cache

from .errors import InvalidPath, StreamNotFound

MAX_PATH_LENGTH = 512
"""Characters that every supported database can index."""

CONTROL_SEGMENT = "__ds"
"""First segment of the paths of control APIs, which are never streams."""

CONTROL_ROOT = CONTROL_SEGMENT + "/"

# Control characters; the backslash, which some proxies turn into a slash; the replacement character, which servers put
# where a URL is not UTF-8, so that two URLs would name one stream; and surrogates, which no database stores.
FORBIDDEN = re.compile("[\x00-\x1f\x7f\\\\\ufffd\ud800-\udfff]")
# A segment that is empty, "." or "..".
_TRAVERSAL = re.compile(r"(?:^|/)(?:\.{1,2})?(?:/|$)")
# Most paths: segments of harmless characters that begin with a letter or a digit.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@=+-]*(?:/[A-Za-z0-9][A-Za-z0-9._~:@=+-]*)*")


class ReservedPath(StreamNotFound):
    """The path belongs to the control APIs, so no stream has it."""

    title = "Reserved path"


def is_reserved(path: str) -> bool:
    """Return whether a path belongs to the control APIs."""
    return path.startswith(CONTROL_ROOT) or path == CONTROL_SEGMENT


def validate(path: str) -> str:
    """Return a percent-decoded path, relative to the root of the streams, if a stream can have it.

    Raises:
        ReservedPath: the path is in the reserved control namespace, whatever else is wrong with it.
        InvalidPath: the path is empty, has over 512 characters, has an empty, `.` or `..` segment, or a forbidden
            character.
    """
    if len(path) <= MAX_PATH_LENGTH and _PLAIN.fullmatch(path) is not None:
        return path
    if is_reserved(path):
        raise ReservedPath(f"Paths below {CONTROL_ROOT} are reserved for control APIs.")
    if not path or len(path) > MAX_PATH_LENGTH:
        raise InvalidPath(f"A stream path has 1 to {MAX_PATH_LENGTH} characters.")
    if FORBIDDEN.search(path) is not None:
        raise InvalidPath("A stream path has no control characters and no backslash, and is UTF-8.")
    if _TRAVERSAL.search(path) is not None:
        raise InvalidPath("A stream path has no empty segments and none that is . or .., and no slash at its ends.")
    return path


validate_again = lru_cache(maxsize=4096)(validate)
"""The same with a cache, for paths of existing streams, which repeat."""
