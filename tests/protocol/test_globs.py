"""Glob patterns: against a plain recursive definition, and in bounded time."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.protocol.globs import Glob, GlobSet, glob

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


@given(st.lists(patterns, max_size=8), paths)
def test_a_set_matches_what_its_patterns_match(texts: list[str], path: str) -> None:
    globs = [Glob(text) for text in texts]
    matching = GlobSet(enumerate(globs)).matching(path)
    assert sorted(matching) == [number for number, pattern in enumerate(globs) if pattern.matches(path)]


def shape(node: Any) -> Any:
    """The whole tree below a node."""
    literals = {segment: shape(child) for segment, child in node.literals.items()}
    others = [None if child is None else shape(child) for child in (node.one, node.any)]
    return node.is_any, sorted(node.keys), literals, others


@given(st.lists(st.tuples(patterns, st.sampled_from(["before", "after", "both"])), max_size=8))
def test_a_changed_set_is_as_a_new_one_and_leaves_the_first_as_it_was(texts: list[tuple[str, str]]) -> None:
    def among(*when: str) -> list[tuple[int, Glob]]:
        return [(number, Glob(text)) for number, (text, one) in enumerate(texts) if one in when]

    first = GlobSet(among("before", "both"))
    before = shape(first._root)
    changed = first.changed(among("after"), among("before"))
    assert shape(changed._root) == shape(GlobSet(among("after", "both"))._root)
    assert shape(first._root) == before
    assert shape(changed.changed((), among("after", "both"))._root) == shape(GlobSet(())._root)


@pytest.mark.parametrize("pattern", ["tenants/{}/**", "tenants/{}/*/events", "**/{}", "{}", "*/{}/**"])
def test_patterns_of_others_cost_nothing(pattern: str) -> None:
    """A create is compared with the patterns of all subscriptions, while other creates wait."""
    many = GlobSet((number, Glob(pattern.format(number))) for number in range(10_000))
    path = "tenants/x/a/b/events"
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        assert not any(many.matching(path) for _ in range(100))
        seconds.append(time.perf_counter() - began)
    assert min(seconds) / 100 < 0.000_1


def test_many_wildcards_of_a_set_take_no_long_time() -> None:
    many = GlobSet((number, Glob("/".join(["**", "a"] * (number + 1)))) for number in range(80))
    path = "/".join(["a"] * 200 + ["b"])
    began = time.perf_counter()
    assert not many.matching(path)
    assert time.perf_counter() - began < 0.5
