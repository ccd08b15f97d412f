"""Large data as events: in pieces, and the same as at once."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_durable_streams.protocol import sse
from tests.nasty import MIB, texts

parts = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b" ", b"x", b"data: ", "é€😀".encode(), b"\xff", b"\xe2\x82", b"\xf0\x9f"]
)
lines = st.lists(parts, max_size=12).map(b"".join)


@given(st.sampled_from(["text/plain", "application/json", "application/octet-stream"]), lines, st.integers(2, 5))
@example("text/plain", b"\r\n ", 2)
@example("text/plain", b"\n ", 2)
@example("text/plain", b"\r ", 2)
@example("text/plain", b" ", 2)
@example("application/json", b"", 2)
def test_an_event_is_the_same_however_it_is_taken_apart(kind: str, stored: bytes, size: int) -> None:
    if kind == "application/json":
        stored = stored.replace(b"\r", b"") + b"\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "PIECE_BYTES", 3 * size)
        assert b"".join(sse.event_pieces(kind, stored)) == sse.data_event(kind, stored)


@pytest.mark.parametrize(("name", "body"), list(texts(MIB)))
def test_a_piece_is_no_larger_for_what_is_in_it(name: str, body: bytes) -> None:
    pieces = list(sse.event_pieces("text/plain", body))
    assert b"".join(pieces) == sse.data_event("text/plain", body)
    assert max(map(len, pieces)) <= 7 * sse.PIECE_BYTES
