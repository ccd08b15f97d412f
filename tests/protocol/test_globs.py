"""Glob patterns: against a plain recursive definition, and in bounded time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.protocol.globs import Glob, glob

segments = st.sampled_from(["a", "b", "ab"])
paths = st.lists(segments, min_size=1, max_size=6).map("/".join)
patterns = st.lists(st.sampled_from(["a", "b", "ab", "*", "**"]), min_size=1, max_size=6).map("/".join)


def defined(pattern: list[str], path: list[str]) -> bool:
    """Whether a path matches, as the specification says it."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(defined(pattern[1:], path[taken:]) for taken in range(len(path) + 1))
    return bool(path) and pattern[0] in ("*", path[0]) and defined(pattern[1:], path[1:])


@given(patterns, paths)
def test_a_pattern_matches_as_the_specification_defines_it(pattern: str, path: str) -> None:
    assert Glob(pattern).matches(path) is defined(pattern.split("/"), path.split("/"))


@given(patterns, paths)
def test_every_matching_path_begins_with_the_prefix(pattern: str, path: str) -> None:
    compiled = Glob(pattern)
    if compiled.matches(path):
        assert path.startswith(compiled.prefix)


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("a", "a"),
        ("a/b", "a/b"),
        ("a/*", "a/"),
        ("a/**", "a"),
        ("*", ""),
        ("**/a", ""),
        ("a/b/*/c", "a/b/"),
        ("a/**/b", "a"),
    ],
)
def test_the_prefix_is_as_long_as_it_can_be(pattern: str, prefix: str) -> None:
    assert Glob(pattern).prefix == prefix


@pytest.mark.parametrize(
    "pattern",
    ["", "/a", "a/", "a//b", "a*", "*a", "a/b*c", "***", "a/***", "../a", "a/./b", "a\\b", "__ds/**", "a\0", "a" * 513],
)
def test_a_pattern_that_no_path_can_match_is_refused(pattern: str) -> None:
    with pytest.raises(DurableStreamsError):
        Glob(pattern)


def test_many_wildcards_take_no_long_time() -> None:
    pattern = glob("/".join(["**", "a"] * 80))
    path = "/".join(["a"] * 79 + ["b"] * 170)
    began = time.perf_counter()
    assert not pattern.matches(path)
    assert time.perf_counter() - began < 0.5
