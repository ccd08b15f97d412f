from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol import headers
from django_durable_streams.protocol.arguments import MAX_TTL_SECONDS
from django_durable_streams.protocol.errors import InvalidHeader

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", ["true", "TRUE", "True", "tRuE"])
def test_closure_is_true_in_any_case(value: str) -> None:
    assert headers.is_true(value)


@pytest.mark.parametrize("value", ["", "false", "yes", "1", "truth", "true,true", "t"])
def test_anything_else_is_no_closure(value: str) -> None:
    assert not headers.is_true(value)


@given(st.integers(0, MAX_TTL_SECONDS))
def test_a_ttl_is_read_as_it_was_written(seconds: int) -> None:
    assert headers.ttl(str(seconds)) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "00",
        "-0",
        "-1",
        "+60",
        "060",
        "60.0",
        "6e1",
        "",
        " ",
        "60s",
        "0x10",
        "1_000",
        "٣٦٠٠",
        "60\n",
        "18446744073709551615",
        str(MAX_TTL_SECONDS + 1),
        pytest.param("9" * 1_000_000, id="a million digits"),
    ],
)
def test_a_ttl_that_means_nothing_is_refused(value: str) -> None:
    with pytest.raises(InvalidHeader):
        headers.ttl(value)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31t12:00:00z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00:00.5Z", datetime(2030, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2030-01-31T12:00:00.123456789Z", datetime(2030, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2030-01-31T12:00:00.1234567890123456789Z", datetime(2030, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        pytest.param(
            f"2030-01-31T12:00:00.{'9' * 1_000_000}Z",
            datetime(2030, 1, 31, 12, 0, 0, 999_999, tzinfo=UTC),
            id="a million digits",
        ),
        ("2030-01-31T12:00:00+02:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
        ("2030-01-31T23:30:00-05:30", datetime(2030, 2, 1, 5, tzinfo=UTC)),
        ("2030-06-30T23:59:60Z", datetime(2030, 6, 30, 23, 59, 59, tzinfo=UTC)),
        ("2028-02-29T00:00:00Z", datetime(2028, 2, 29, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_an_rfc_3339_timestamp(value: str, moment: datetime) -> None:
    assert headers.expires_at(value, NOW) == moment


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Jan 1 2099",
        "2099-01-01",
        "2099-01-01T00:00:00",
        "2099-01-01 00:00:00Z",
        "4070908800",
        "2099-13-01T00:00:00Z",
        "2099-02-29T00:00:00Z",
        "2099-01-01T24:00:00Z",
        "2099-01-01T00:60:00Z",
        "2099-01-01T00:00:61Z",
        "2099-01-01T00:00:00+24:00",
        "2099-01-01T00:00:00.Z",
        "2099-01-01T00:00:00Z\n",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "２０９９-01-01T00:00:00Z",
    ],
)
def test_an_expiry_that_is_no_timestamp_is_refused(value: str) -> None:
    with pytest.raises(InvalidHeader):
        headers.expires_at(value, NOW)


@pytest.mark.parametrize("value", ["2026-01-01T00:00:00Z", "2025-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z"])
def test_an_expiry_that_has_passed_is_refused(value: str) -> None:
    with pytest.raises(InvalidHeader, match="past"):
        headers.expires_at(value, NOW)


@given(st.datetimes(datetime(2026, 1, 2), datetime(9998, 1, 1), timezones=st.just(UTC)))
def test_an_expiry_comes_back_as_the_moment_that_it_was(moment: datetime) -> None:
    assert headers.expires_at(headers.format_time(moment), NOW) == moment


def test_an_expiry_is_written_with_a_fraction_only_where_there_is_one() -> None:
    assert headers.format_time(NOW) == "2026-01-01T00:00:00Z"
    assert headers.format_time(NOW + timedelta(milliseconds=5)) == "2026-01-01T00:00:00.005000Z"


@pytest.mark.parametrize(("value", "number"), [("0", 0), ("007", 7), (str(2**53 - 1), 2**53 - 1)])
def test_producer_numbers(value: str, number: int) -> None:
    assert headers.producer_number("Producer-Seq", value.encode("latin-1")) == number


@pytest.mark.parametrize(
    "value", ["", "-1", "1.0", "1e3", "abc", "+1", "1 2", "٣", str(2**53), pytest.param("9" * 5000, id="long")]
)
def test_what_is_no_producer_number_is_refused_by_its_name(value: str) -> None:
    with pytest.raises(InvalidHeader, match="Producer-Epoch"):
        headers.producer_number("Producer-Epoch", value.encode())


@pytest.mark.parametrize("value", ["", "-1", "01", "1.5", "+1", "9" * 17, "one"])
def test_what_is_no_sub_offset_is_refused(value: str) -> None:
    with pytest.raises(InvalidHeader):
        headers.sub_offset(value)


@given(st.integers(0, 10**16 - 1))
def test_a_sub_offset_is_read_as_it_was_written(number: int) -> None:
    assert headers.sub_offset(str(number)) == number


@pytest.mark.parametrize("value", ["a", "order service 1", "é", "a" * 256])
def test_a_name_is_kept_as_it_came(value: str) -> None:
    assert headers.opaque("Producer-Id", value) == value


@pytest.mark.parametrize("value", ["", "a" * 257, "a\x00", "a\tb", "\x7f", "a\r\nb"])
def test_a_name_that_cannot_be_kept_is_refused(value: str) -> None:
    with pytest.raises(InvalidHeader, match="Producer-Id"):
        headers.opaque("Producer-Id", value)
