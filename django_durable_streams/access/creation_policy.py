"""Which streams may be created at all: their paths and content types."""

from __future__ import annotations

from ..conf import Config
from ..protocol import content
from ..protocol.errors import PermissionDenied, UnsupportedContentType
from .patterns import pattern


class CreationPolicy:
    """Checks what is to be created over HTTP against `PATH_PATTERNS` and `CONTENT_TYPES`.

    Raises:
        ValueError: a pattern means nothing.
    """

    def __init__(self, settings: Config) -> None:
        self._patterns = [pattern(text) for text in settings.path_patterns]
        if any(known.fields for known in self._patterns):
            raise ValueError("PATH_PATTERNS are the same for all users.")
        self._kinds = frozenset(kind.lower() for kind in settings.content_types)

    @staticmethod
    def is_needed(settings: Config) -> bool:
        """Whether anything is restricted."""
        return bool(settings.path_patterns or settings.content_types)

    def check(self, path: str, content_type: bytes | None, *, forks: bool) -> None:
        """See that a stream may be created.

        Args:
            content_type: as it was given.
            forks: whether it is a fork, which has its source's content type where none is given.

        Raises:
            PermissionDenied: no stream is created at such a path (403).
            UnsupportedContentType: none of this content type is (415).
        """
        if self._patterns and not any(known.matches(path) for known in self._patterns):
            raise PermissionDenied("Streams are not created at such paths here.")
        if forks and not content_type:
            return
        given = content_type.decode("latin-1") if content_type else content.DEFAULT_CONTENT_TYPE
        if self._kinds and given.partition(";")[0].strip().lower() not in self._kinds:
            raise UnsupportedContentType(f"Streams here are of: {', '.join(sorted(self._kinds))}.")
