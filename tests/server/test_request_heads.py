"""Request heads: what is read here is read as the server's own parser reads it."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.server.uvicorn import request_heads
from django_durable_streams.server.uvicorn.handed_over import Reason
from django_durable_streams.server.uvicorn.request_heads import Head

HOST = b"Host: example.com"


def head(*lines: bytes, request: bytes = b"GET /v1/stream/a HTTP/1.1") -> bytes:
    return b"\r\n".join([request, HOST, *lines])


class Parsed:
    """What httptools makes of a head, with uvicorn's own reading of the URL."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.url = b""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data + request_heads.END)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_headers_complete(self) -> None:
        self.keeps_alive = self.parser.should_keep_alive()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def test_a_plain_head_is_read() -> None:
    head_parsed = request_heads.parse(
        head(b"Content-Type:text/plain ", b"CONTENT-LENGTH:\t12", request=b"POST /v1/stream/a%20b?offset=-1 HTTP/1.1")
    )
    assert isinstance(head_parsed, Head)
    assert (head_parsed.method, head_parsed.path, head_parsed.query) == ("POST", "/v1/stream/a b", b"offset=-1")
    # White space at the end stays, as in the scope that uvicorn makes.
    assert head_parsed.headers == {b"host": b"example.com", b"content-type": b"text/plain ", b"content-length": b"12"}
    assert head_parsed.content_length == 12


def test_what_counts_up_is_read_anew_and_the_rest_is_remembered() -> None:
    for number in range(3):
        lines = head(b"Content-Length: 1", b"PRODUCER-SEQ:  %d " % number, b"A: b", request=b"POST /a HTTP/1.1")
        head_parsed = request_heads.parse(lines)
        assert isinstance(head_parsed, Head)
        assert head_parsed.headers[b"producer-seq"] == b"%d" % number
        assert (head_parsed.path, head_parsed.headers[b"a"], head_parsed.content_length) == ("/a", b"b", 1)


def test_a_head_is_remembered_once_however_often_it_counts() -> None:
    request_heads.parse.cache_clear()
    assert request_heads.parse(head(*[b"Producer-Seq: 1"] * 400, request=b"POST /a HTTP/1.1")) is Reason.LARGE_HEAD
    assert request_heads.parse.cache_info().currsize == 1


LEFT: dict[Reason, list[bytes]] = {
    Reason.REPEATED_HEADER: [
        head(b"Producer-Seq: 1", b"Producer-Seq: 1", request=b"POST /a HTTP/1.1"),
        head(b"Content-Length: 1", b"Content-Length: 1"),
        head(b"Stream-Seq: 1", b"Stream-Seq: 2"),
        head(b"X-Forwarded-For: 10.0.0.1", b"X-Forwarded-For: 10.0.0.1"),
        head(HOST),
    ],
    Reason.METHOD: [head(request=b"OPTIONS /a HTTP/1.1"), head(request=b"get /a HTTP/1.1")],
    Reason.TARGET: [
        head(request=b"GET /a HTTP/0.9"),
        head(request=b"GET /a HTTP/1.2"),
        head(request=b"GET  /a HTTP/1.1"),
        head(request=b"GET a HTTP/1.1"),
        head(request=b"GET http://example.com/a HTTP/1.1"),
        head(request=b"GET /a\xc3\xa4 HTTP/1.1"),
        head(request=b"GET /a#b HTTP/1.1"),
        b"GET /a HTTP/1.1",
    ],
    Reason.CHUNKED_BODY: [head(b"Transfer-Encoding: chunked"), head(b"Trailer: a")],
    Reason.EXPECT: [head(b"Expect: 100-continue")],
    Reason.CONNECTION: [
        head(b"Upgrade: websocket", b"Connection: upgrade"),
        head(b"Connection: close, upgrade"),
        head(b"Connection: close, keep-alive"),
        head(b"Connection: x-forwarded-for"),
        head(b"Connection:"),
    ],
    Reason.LENGTH: [
        head(b"Content-Length: +1"),
        head(b"Content-Length: 1, 1"),
        head(b"Content-Length: 1" + b"0" * 20),
        head(b"Content-Length:"),
    ],
    Reason.LARGE_HEAD: [head(*[b"A%d: b" % number for number in range(64)])],
    Reason.MALFORMED_HEADER: [
        head(b"Producer-Seq: 1", b" 2", request=b"POST /a HTTP/1.1"),
        head(b"Producer-Seq: 1", b"no colon", request=b"POST /a HTTP/1.1"),
        head(b"Producer-Seq: 1\n", request=b"POST /a HTTP/1.1"),
        head(b"A : b"),
        head(b" folded: line"),
        head(b"no colon"),
        head(b"A: b\nTransfer-Encoding: chunked"),
        head(b"A: b\rc"),
        head(b"A: \x00"),
        head(b": empty name"),
        b"GET /a HTTP/1.1\r\nAccept: */*",
    ],
}


@pytest.mark.parametrize(("reason", "data"), [(reason, data) for reason, heads in LEFT.items() for data in heads])
def test_what_is_not_plain_is_left_to_the_server(reason: Reason, data: bytes) -> None:
    assert request_heads.parse(data) is reason
    assert request_heads.parse_once(data) is reason


@pytest.mark.parametrize(
    "data",
    [
        head(b"Connection: close"),
        head(b"Connection: Close "),
        head(request=b"GET /a HTTP/1.0"),
        head(b"Connection: keep-alive", request=b"POST /a HTTP/1.0"),
    ],
)
def test_requests_that_end_their_connection_are_served(data: bytes) -> None:
    head_parsed = request_heads.parse(data)
    assert isinstance(head_parsed, Head)
    assert head_parsed.closes
    assert Parsed(data).parser.get_http_version() == head_parsed.version
    assert head_parsed.version == "1.0" or not Parsed(data).keeps_alive


token = st.text("abcXYZ-_!#09", min_size=1, max_size=8).map(str.encode)
name = token | st.sampled_from([b"Producer-Seq", b"producer-seq"])
value = st.binary(max_size=12) | st.integers(0, 99).map(b"%d".__mod__)
method = st.sampled_from([b"GET ", b"POST "])
target = st.text("abc/%20-._~!$&'()*+,;=:@?", max_size=20).map(lambda text: b"/" + text.encode())


@given(method, target, st.lists(st.tuples(name, st.sampled_from([b":", b": ", b":\t", b" :"]), value), max_size=4))
def test_whatever_is_read_here_the_servers_parser_reads_so_too(
    method: bytes, target: bytes, lines: list[tuple[bytes, bytes, bytes]]
) -> None:
    data = head(*(b"".join(line) for line in lines), request=method + target + b" HTTP/1.1")
    result = request_heads.parse(data)
    if isinstance(result, Head):
        parsed = Parsed(data)
        by_name = {name: value.strip(b" \t") for name, value in result.headers.items()}
        assert sorted(by_name.items()) == sorted((name, value.strip(b" \t")) for name, value in parsed.headers)
        assert parsed.url == target
        assert parsed.keeps_alive
        assert not parsed.parser.should_upgrade()
