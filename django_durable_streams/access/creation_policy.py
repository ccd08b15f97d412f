"""The paths and content types of streams that may be created over HTTP."""

from __future__ import annotations

from ..conf import Config
from ..protocol import content
from ..protocol.errors import PermissionDenied, UnsupportedContentType
from .patterns import pattern


class CreationPolicy:
    """Checks creates over HTTP against the settings `PATH_PATTERNS` and `CONTENT_TYPES`.

    Raises:
        ValueError: a pattern is invalid, or names a field of the user.
    """

    def __init__(self, settings: Config) -> None:
        self._patterns = [pattern(text) for text in settings.path_patterns]
        if any(path_pattern.fields for path_pattern in self._patterns):
            raise ValueError("PATH_PATTERNS apply to all users, so they cannot have a field such as {user.pk}.")
        self._kinds = frozenset(kind.lower() for kind in settings.content_types)

    @staticmethod
    def is_needed(settings: Config) -> bool:
        """Return whether the settings restrict creates."""
        return bool(settings.path_patterns or settings.content_types)

    def check(self, path: str, content_type: bytes | None, *, forks: bool) -> None:
        """Return if a stream may be created.

        Args:
            path: the stream's path.
            content_type: the header `Content-Type`, or None.
            forks: whether the stream is a fork. A fork without a content type has that of its source.

        Raises:
            PermissionDenied: no pattern matches the path (403).
            UnsupportedContentType: the content type is not in the list (415).
        """
        if self._patterns and not any(path_pattern.matches(path) for path_pattern in self._patterns):
            raise PermissionDenied("Streams cannot be created at this path.")
        if forks and not content_type:
            return
        kind = content_type.decode("latin-1") if content_type else content.DEFAULT_CONTENT_TYPE
        if self._kinds and kind.partition(";")[0].strip().lower() not in self._kinds:
            raise UnsupportedContentType(f"The allowed content types are: {', '.join(sorted(self._kinds))}.")
