"""Large texts as events: in pieces, and the same as at once."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_durable_streams.protocol import sse
from tests.nasty import MIB, texts

lines = st.lists(st.sampled_from(["\n", "\r", "\r\n", " ", "x", "data: ", "é"]), max_size=12).map("".join)


@given(lines, st.integers(1, 4))
@example("\r\n ", 1)
@example("\n ", 1)
@example("\r ", 1)
@example(" ", 1)
def test_an_event_is_the_same_however_it_is_taken_apart(text: str, size: int) -> None:
    whole = sse.data_event("text/plain", text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "PIECE_BYTES", size)
        assert sse.data_event("text/plain", text.encode()) == whole


@pytest.mark.parametrize(("name", "body"), list(texts(MIB)))
def test_a_piece_is_no_larger_for_what_is_in_it(name: str, body: bytes) -> None:
    pieces = list(sse._pieces(body))
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= sse.PIECE_BYTES + 2
