"""Glob patterns over the paths of streams (specification, section 6.2).

`*` matches one segment, `**` any number of segments, also none. All other segments match themselves. Knows no
subscription.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

from .errors import InvalidPath
from .paths import MAX_PATH_LENGTH, validate

ONE, ANY = "*", "**"

Key = TypeVar("Key", bound=Hashable)


class Glob:
    """A compiled pattern.

    Attributes:
        text: the pattern as it was written.
        prefix: the text with which every matching path begins.

    Raises:
        InvalidPath: no path can match the pattern, or a segment has a wildcard among other characters.
    """

    __slots__ = ("_is_tree", "_segments", "prefix", "text")

    def __init__(self, text: str) -> None:
        if not text or len(text) > MAX_PATH_LENGTH:
            raise InvalidPath(f"A pattern of paths has 1 to {MAX_PATH_LENGTH} characters.")
        segments = text.split("/")
        for segment in segments:
            if "*" in segment and segment not in (ONE, ANY):
                raise InvalidPath(
                    f"In the pattern {text!r}, {segment!r} is not allowed. A wildcard is a whole segment: * matches "
                    "one segment, ** any number."
                )
        validate("/".join("x" if segment in (ONE, ANY) else segment for segment in segments))
        self.text = text
        # One `**` after another adds nothing.
        self._segments = [
            segment
            for number, segment in enumerate(segments)
            if segment != ANY or segments[number - 1 : number] != [ANY]
        ]
        literals = self._segments[: next((n for n, one in enumerate(segments) if one in (ONE, ANY)), len(segments))]
        is_literal = len(literals) == len(self._segments)
        # `a/**` matches `a`, too.
        ends_open = not is_literal and self._segments[len(literals)] == ONE
        self.prefix = "/".join([*literals, ""] if ends_open and literals else literals)
        # As in `a/b/**`: all that is at or below a path.
        self._is_tree = self._segments == [*literals, ANY]

    def matches(self, path: str) -> bool:
        """Return whether a path matches. Takes at most the product of both numbers of segments."""
        if not path.startswith(self.prefix):
            return False
        if self._is_tree:
            length = len(self.prefix)
            return not length or len(path) == length or path[length] == "/"
        return _matches(self._segments, path.split("/"))

    @property
    def segments(self) -> Sequence[str]:
        """The pattern in parts, without a `**` that follows another one."""
        return self._segments

    def __repr__(self) -> str:
        return f"Glob({self.text!r})"


class GlobSet(Generic[Key]):
    """Many patterns, each with a key, which are compared with a path all at once.

    It is a tree of their segments. A path takes its way through the tree, so patterns that begin with other segments
    cost nothing. The tree never changes, so threads may share it. A change copies the nodes on the way of a pattern.
    """

    __slots__ = ("_root",)

    def __init__(self, patterns: Iterable[tuple[Key, Glob]]) -> None:
        self._root: _Node[Key] = _Node(is_any=False)
        editor = _Editor(self._root)
        for key, pattern in patterns:
            editor.add(key, pattern)

    def changed(self, added: Iterable[tuple[Key, Glob]], removed: Iterable[tuple[Key, Glob]]) -> GlobSet[Key]:
        """Return the set after a change. It costs little for few patterns, however many the set has.

        Args:
            added: patterns to add, each with its key.
            removed: patterns to remove before, which the set has.
        """
        result: GlobSet[Key] = GlobSet(())
        result._root = self._root.copy()
        editor = _Editor(result._root)
        for key, pattern in removed:
            editor.remove(key, pattern)
        for key, pattern in added:
            editor.add(key, pattern)
        return result

    def matching(self, path: str) -> list[Key]:
        """Return the keys of the patterns that match a path."""
        if not self._root.leads_on(path.partition("/")[0]):  # as for most paths
            return []
        nodes = self._root.with_any()
        for segment in path.split("/"):
            # A dictionary, because two ways may lead to a node.
            following: dict[_Node[Key], None] = {}
            for node in nodes:
                node.follow(segment, following)
            if not following:
                return []
            nodes = following
        return [key for node in nodes for key in node.keys]


class _Node(Generic[Key]):
    """The patterns that begin with the same segments."""

    __slots__ = ("any", "is_any", "keys", "literals", "one")

    def __init__(self, *, is_any: bool) -> None:
        self.is_any = is_any
        """Whether the last of these segments is `**`."""
        self.keys: list[Key] = []
        """The keys of the patterns that end here."""
        self.literals: dict[str, _Node[Key]] = {}
        self.one: _Node[Key] | None = None
        self.any: _Node[Key] | None = None

    def copy(self) -> _Node[Key]:
        """Return a node with the same content."""
        node: _Node[Key] = _Node(is_any=self.is_any)
        node.keys, node.literals, node.one, node.any = [*self.keys], {**self.literals}, self.one, self.any
        return node

    @property
    def is_empty(self) -> bool:
        """Whether no pattern begins with these segments."""
        return not (self.keys or self.literals or self.one or self.any)

    def child(self, segment: str) -> _Node[Key] | None:
        """Return the node of one segment more of a pattern."""
        if segment == ANY:
            return self.any
        return self.one if segment == ONE else self.literals.get(segment)

    def set_child(self, segment: str, node: _Node[Key] | None) -> None:
        """Set the node of one segment more, or remove it."""
        if segment == ANY:
            self.any = node
        elif segment == ONE:
            self.one = node
        elif node is not None:
            self.literals[segment] = node
        else:
            del self.literals[segment]

    def leads_on(self, segment: str) -> bool:
        """Return whether a segment of a path leads to any node."""
        return segment in self.literals or self.one is not None or self.any is not None

    def with_any(self) -> dict[_Node[Key], None]:
        """Return the node, and the one of a `**` after it, which matches no segment, too."""
        return {self: None} if self.any is None else {self: None, self.any: None}

    def follow(self, segment: str, into: dict[_Node[Key], None]) -> None:
        """Add the nodes to which a segment of a path leads."""
        if self.is_any:
            into[self] = None
        literal = self.literals.get(segment)
        for node in (literal, self.one):
            if node is not None:
                into[node] = None
                if node.any is not None:
                    into[node.any] = None


class _Editor(Generic[Key]):
    """Changes a tree whose root is new. It copies all other nodes before it changes them, once each."""

    def __init__(self, root: _Node[Key]) -> None:
        self._root = root
        self._own = {root}

    def add(self, key: Key, pattern: Glob) -> None:
        """Add a pattern."""
        self._way(pattern)[-1].keys.append(key)

    def remove(self, key: Key, pattern: Glob) -> None:
        """Remove a pattern, and the nodes that no other pattern needs."""
        nodes = self._way(pattern)
        nodes[-1].keys.remove(key)
        for segment, parent, node in zip(reversed(pattern.segments), nodes[-2::-1], nodes[:0:-1], strict=True):
            if not node.is_empty:
                break
            parent.set_child(segment, None)

    def _way(self, pattern: Glob) -> list[_Node[Key]]:
        """Return the nodes on the way of a pattern, which may be changed."""
        nodes = [self._root]
        for segment in pattern.segments:
            node = nodes[-1].child(segment)
            if node not in self._own:
                node = _Node(is_any=segment == ANY) if node is None else node.copy()
                self._own.add(node)
                nodes[-1].set_child(segment, node)
            nodes.append(node)
        return nodes


def _matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Match segment by segment. On a mismatch, only the last `**` takes one segment more: no earlier one has to."""
    at = taken = 0
    last_any, resume = -1, 0
    while taken < len(path):
        segment = pattern[at] if at < len(pattern) else None
        if segment == ANY:
            last_any, resume = at, taken
            at += 1
        elif segment is not None and (segment in (ONE, path[taken])):
            at += 1
            taken += 1
        elif last_any >= 0:
            resume += 1
            at, taken = last_any + 1, resume
        else:
            return False
    return all(segment == ANY for segment in pattern[at:])


@lru_cache(maxsize=1024)
def glob(text: str) -> Glob:
    """Return the compiled pattern of a text. Compiled patterns are cached.

    Raises:
        InvalidPath: as for `Glob`.
    """
    return Glob(text)
