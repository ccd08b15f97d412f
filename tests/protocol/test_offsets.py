import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol import offsets
from django_durable_streams.protocol.errors import InvalidOffset
from django_durable_streams.protocol.offsets import MAX_NUMBER, Offset, Sentinel

numbers = st.integers(0, MAX_NUMBER)
ZERO = "0000000000000000"


@given(numbers, st.integers(1, MAX_NUMBER))
def test_a_token_says_what_it_was_made_from(generation: int, position: int) -> None:
    assert offsets.decode(offsets.encode(generation, position)) == Offset(generation, position)


@given(numbers, numbers)
def test_headers_and_text_carry_the_same_token(generation: int, position: int) -> None:
    token = offsets.encode(generation, position)
    assert offsets.encode_bytes(generation, position).decode() == token == str(Offset(generation, position))


@given(st.integers(1, MAX_NUMBER), numbers, numbers)
def test_tokens_sort_as_text_in_the_order_of_their_positions(generation: int, one: int, other: int) -> None:
    assert (offsets.encode(generation, one) < offsets.encode(generation, other)) == (one < other)


@given(numbers, numbers)
def test_a_token_needs_no_escape_in_a_url_and_is_never_a_sentinel(generation: int, position: int) -> None:
    token = offsets.encode(generation, position)
    assert set(token) <= set("0123456789_")
    assert token not in ("-1", "now")


@given(numbers)
def test_zero_is_written_out_and_is_the_same_in_every_stream(generation: int) -> None:
    assert offsets.encode(generation, 0) == f"{ZERO}_{ZERO}" == offsets.ZERO


def test_a_generation_is_greater_than_those_before_it_whatever_the_clock_says() -> None:
    first = offsets.new_generation()
    assert first <= offsets.new_generation() < MAX_NUMBER
    assert offsets.new_generation(first + 10**12) == first + 10**12 + 1


def test_sentinels() -> None:
    assert offsets.decode("-1") is Sentinel.START
    assert offsets.decode("now") is Sentinel.NOW


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
        result = offsets.decode(token)
    except InvalidOffset:
        return
    assert isinstance(result, Sentinel) or f"{result.generation:016d}_{result.position:016d}" == token
