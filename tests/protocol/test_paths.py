import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol import paths
from django_durable_streams.protocol.errors import InvalidPath, StreamNotFound


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "chat/42",
        "a b",
        "日本/語",
        "%2e",
        "...",
        "a/...",
        "a..b",
        ".well-known",
        "a?b",
        "a" * 512,
        "__dsx",
        "x/__ds",
    ],
)
def test_a_stream_can_have_this_path(path: str) -> None:
    assert paths.validate(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        ".",
        "..",
        "../etc",
        "a/..",
        "a/../b",
        "a/./b",
        "./a",
        "a\\b",
        "a\x00b",
        "a\nb",
        "a\x7f",
        "\ufffd",
        chr(0xD83D),
        "a" * 513,
    ],
)
def test_no_stream_can_have_this_path(path: str) -> None:
    with pytest.raises(InvalidPath):
        paths.validate(path)


@pytest.mark.parametrize("path", ["__ds", "__ds/subscriptions/a", "__ds/x"])
def test_control_paths_are_no_streams(path: str) -> None:
    with pytest.raises(StreamNotFound):
        paths.validate(path)


@given(st.lists(st.text(max_size=8), max_size=6).map("/".join))
def test_a_valid_path_climbs_nowhere_and_has_no_empty_segment(path: str) -> None:
    try:
        paths.validate(path)
    except (InvalidPath, StreamNotFound):
        return
    assert not {"", ".", ".."} & set(path.split("/"))
    assert path.encode()  # it has an encoding, so a database takes it
