"""Responses that many requests get stay as they are."""

from django_durable_streams.protocol.messages import Response

NOSNIFF = [(b"x-content-type-options", b"nosniff")]
VARY = [(b"vary", b"Origin")]


def test_headers_are_added_to_a_response_of_one_request() -> None:
    response = Response(204, [(b"etag", b'"1"')])
    assert response.with_headers(NOSNIFF) is response
    assert response.headers == [(b"etag", b'"1"'), *NOSNIFF]


def test_a_shared_response_is_completed_once_and_stays_as_it_is() -> None:
    shared = Response(200, [(b"etag", b'"1"')], b"abc", is_shared=True)
    whole = shared.with_headers(NOSNIFF)
    assert (whole.status, whole.headers, whole.body) == (200, [(b"etag", b'"1"'), *NOSNIFF], b"abc")
    assert whole.is_shared
    assert shared.with_headers(NOSNIFF) is whole
    assert shared.with_headers(VARY).headers == [(b"etag", b'"1"'), *VARY]
    assert shared.headers == [(b"etag", b'"1"')]
    assert NOSNIFF == [(b"x-content-type-options", b"nosniff")]
