import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol import offsets
from django_durable_streams.protocol.errors import InvalidOffset
from django_durable_streams.protocol.offsets import BEYOND, MAX_POSITION, Sentinel

positions = st.integers(0, MAX_POSITION)
ZERO = "0000000000000000"


@given(positions)
def test_a_token_decodes_to_the_position_that_it_was_made_from(position: int) -> None:
    assert offsets.decode(offsets.encode(position)) == position


@given(positions)
def test_headers_and_text_carry_the_same_token(position: int) -> None:
    assert offsets.encode_bytes(position).decode() == offsets.encode(position)


@given(positions, positions)
def test_tokens_sort_as_text_in_the_order_of_their_positions(one: int, other: int) -> None:
    assert (offsets.encode(one) < offsets.encode(other)) == (one < other)


@given(positions)
def test_a_token_needs_no_escape_in_a_url_and_is_never_a_sentinel(position: int) -> None:
    token = offsets.encode(position)
    assert set(token) <= set("0123456789_")
    assert token not in ("-1", "now")


def test_zero_is_written_out() -> None:
    assert offsets.encode(0) == f"{ZERO}_{ZERO}"


def test_sentinels() -> None:
    assert offsets.decode("-1") is Sentinel.START
    assert offsets.decode("now") is Sentinel.NOW


@pytest.mark.parametrize("token", [f"9999999999999999_{9:016d}", f"0000000000000001_{ZERO}", "9" * 16 + "_" + "9" * 16])
def test_a_token_of_another_kind_of_server_lies_past_every_tail(token: str) -> None:
    assert offsets.decode(token) == BEYOND
    assert BEYOND > MAX_POSITION


@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "0",
        "-2",
        "NOW",
        "-1 ",
        " -1",
        "now\n",
        "null",
        f"{ZERO}_{ZERO}\n",
        f" {ZERO}_{ZERO}",
        f"{ZERO}_{ZERO},",
        f"{ZERO}/{ZERO}",
        f"{ZERO}_{ZERO}\x00",
        f"{ZERO}_..",
        f"{ZERO}-{ZERO}",
        f"{ZERO}_{ZERO}0",
        f"{ZERO}_+000000000000001",
        f"{ZERO}_{'٠' * 16}",
        f"{ZERO}_{'０' * 16}",
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidOffset):
        offsets.decode(token)


@given(st.text())
def test_any_text_decodes_or_is_refused(token: str) -> None:
    try:
        found = offsets.decode(token)
    except InvalidOffset:
        return
    assert found in (Sentinel.START, Sentinel.NOW, BEYOND) or offsets.encode(int(found)) == token
