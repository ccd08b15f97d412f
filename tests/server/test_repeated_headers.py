"""Headers that come in several lines: one rule at every entry point."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, Permission
from django_durable_streams.protocol import headers
from django_durable_streams.protocol.errors import InvalidHeader
from tests.access.test_bearer_tokens import BEARER, token
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

Lines = list[tuple[bytes, bytes]]

HOST = (b"host", b"testserver")
TEXT = (b"content-type", b"text/plain")
PRODUCER = [(b"producer-id", b"p"), (b"producer-epoch", b"0"), (b"producer-seq", b"0")]

# A header with one value, a good value, another good value, and the request that it belongs to.
SINGLE = {
    "host": (b"testserver", b"localhost", "POST", [TEXT]),
    "content-type": (b"text/plain", b"text/html", "POST", []),
    "content-length": (b"1", b"2", "POST", [TEXT]),
    "origin": (b"http://testserver", b"https://evil.example", "POST", [TEXT]),
    "authorization": (b"Bearer x", b"Bearer y", "POST", [TEXT]),
    "stream-closed": (b"true", b"false", "POST", [TEXT]),
    "stream-seq": (b"1", b"2", "POST", [TEXT]),
    "producer-id": (b"p", b"q", "POST", [TEXT, *PRODUCER[1:]]),
    "producer-epoch": (b"0", b"1", "POST", [TEXT, PRODUCER[0], PRODUCER[2]]),
    "producer-seq": (b"0", b"1", "POST", [TEXT, *PRODUCER[:2]]),
    "stream-ttl": (b"60", b"61", "PUT", [TEXT]),
    "stream-expires-at": (b"2999-01-01T00:00:00Z", b"2999-01-01T00:00:01Z", "PUT", [TEXT]),
    "stream-forked-from": (b"/v1/stream/a", b"/v1/stream/b", "PUT", []),
    "stream-fork-offset": (
        b"0000000000000000_0000000000000000",
        b"0000000000000000_0000000000000003",
        "PUT",
        [(b"stream-forked-from", b"/v1/stream/a")],
    ),
    "stream-new-in-a-later-version": (b"1", b"2", "POST", [TEXT]),
}
# Refused by Django or by the servers themselves where there are two, the same or not (RFC 9112, sections 3.2 and 6.3).
NEVER_TWICE = {("host", "django"), ("host", "wsgi"), ("content-length", "direct"), ("content-length", "wsgi")}
# Opaque values may have commas, by which a server without header lines joins several.
JOINED = {"producer-id", "stream-seq", "stream-forked-from", "stream-new-in-a-later-version", "authorization"}


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize("name", SINGLE)
async def test_what_has_one_value_may_be_said_twice_and_not_in_two_ways(
    entry: str, name: str, engines: None, transactional_db: None
) -> None:
    one, other, method, rest = SINGLE[name]
    for path in ("a", "b"):
        await Stream.objects.acreate(path=path, content_type="text/plain", data="abc")
    point = EntryPoint(entry)
    key = name.encode()

    async def send(target: str, *values: bytes) -> int:
        body = b"x" if method == "POST" else b""
        lines: Lines = [*[(key, value) for value in values], *rest]
        return (await point.request(method, target, lines, body)).status

    target = "a" if method == "POST" else "made"
    if not (entry == "wsgi" and name in JOINED):
        assert await send(target, one, other) == 400
        assert await send(target, other, one) == 400
        assert await send(target, one, other, one) == 400
        assert await send(target, one, b"") == 400
        assert await send(target, b"", one) == 400
    assert (await Stream.objects.aget(path="a")).tail_position == 3
    if (name, entry) in NEVER_TWICE:
        assert await send(target, one, one) == 400
    elif (name, entry) != ("stream-forked-from", "wsgi"):  # a path may have commas
        assert await send(target, one, one) in (200, 201, 204)


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize("name", [one for one in SINGLE if one not in JOINED])
async def test_lines_that_a_proxy_has_joined_are_those_lines(
    entry: str, name: str, engines: None, transactional_db: None
) -> None:
    """A WSGI server joins them as well, so one line with commas means the same everywhere."""
    one, other, method, rest = SINGLE[name]
    for path in ("a", "b"):
        await Stream.objects.acreate(path=path, content_type="text/plain", data="abc")
    point, key = EntryPoint(entry), name.encode()

    async def send(value: bytes) -> int:
        body = b"x" if method == "POST" else b""
        return (await point.request(method, "a" if body else "made", [(key, value), *rest], body)).status

    for value in (one + b", " + other, other + b"," + one, one + b",", b", " + one):
        assert await send(value) == 400, value
    assert (await Stream.objects.aget(path="a")).tail_position == 3
    if name in ("host", "content-length"):  # no two servers may take it for different things
        assert await send(one + b", " + one) == 400
    else:
        assert await send(one + b", " + one) in (200, 201, 204)
    if name == "stream-closed":
        assert (await Stream.objects.aget(path="a")).closed


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_a_token_that_a_client_and_a_call_have_set_counts_once(
    entry: str, engines: None, transactional_db: None
) -> None:
    await Stream.objects.acreate(path="a", content_type="text/plain", data="abc")
    point = EntryPoint(entry)
    ann = (b"authorization", f"Bearer {token({'read': ['a']})}".encode())
    bob = (b"authorization", f"Bearer {token({'read': ['b']})}".encode())
    with override_streams(PERMISSION_CLASSES=BEARER):
        assert (await point.request("GET", "a", [ann, ann])).body == b"abc"
        joined = (b"authorization", ann[1] + b", " + ann[1])
        assert (await point.request("GET", "a", [joined])).body == b"abc"
        assert (await point.request("GET", "a", [ann, bob])).status in (400, 401)
        assert (await point.request("GET", "a", [bob, ann])).status in (400, 401)


class Own(Permission):
    """A project's own class, which looks at a header of its own."""

    in_memory = True
    needs_user = False

    def can_read(self, user: object, path: str, request: AccessRequest) -> bool:
        values = {
            request.headers["x-role"].replace(" ", ""),
            (request.header(b"x-role") or b"").decode().replace(" ", ""),
            request.http_request.META["HTTP_X_ROLE"].replace(" ", ""),
        }
        return values == {"reader,admin"}


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_what_is_a_list_is_one_for_everybody(entry: str, engines: None, transactional_db: None) -> None:
    await Stream.objects.acreate(path="a", content_type="text/plain", data="abc")
    lines = [(b"x-role", b"reader"), (b"x-role", b"admin")]
    with override_streams(PERMISSION_CLASSES="tests.server.test_repeated_headers.Own"):
        assert (await EntryPoint(entry).request("GET", "a", lines)).status == 200
        assert (await EntryPoint(entry).request("GET", "a", lines[::-1])).status == 403


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_cookies_may_come_in_several_lines(entry: str, engines: None, transactional_db: None) -> None:
    await Stream.objects.acreate(path="a", content_type="text/plain", data="abc")
    lines = [(b"cookie", b"a=1"), (b"cookie", b"jwt=ann"), (b"cookie", b"b=2")]
    with override_streams(PERMISSION_CLASSES="tests.access.test_hidden_credentials.OwnCookie"):
        assert (await EntryPoint(entry).request("GET", "a", lines)).status == 200


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a/b,a/b", b"a/b"),
        (b'a/b; x="1,2"', b'a/b; x="1,2"'),
        (b'a/b; x="1,2", a/b; x="1,2"', b'a/b; x="1,2"'),
        (b'a/b; x="\\",2"', b'a/b; x="\\",2"'),
        (b'a/b; x="1,2', b'a/b; x="1,2'),
        (b'a/b; x="1\\', b'a/b; x="1\\'),
        (b"a/b,c/d", None),
        (b"a/b,", None),
        (b",a/b", None),
        (b"a/b, ", None),
        (b"a/b,,a/b", None),
        (b",", None),
        (b'a/b; x="1",c/d', None),
        (b'"\\' * 30_000 + b",", b'"\\' * 30_000 + b","),
    ],
)
def test_what_a_server_has_joined_is_taken_apart_outside_of_quotes(value: bytes, expected: bytes | None) -> None:
    if expected is None:
        with pytest.raises(InvalidHeader):
            headers.single_value(b"content-type", value)
    else:
        assert headers.single_value(b"content-type", value) == expected


names = st.sampled_from([b"host", b"stream-seq", b"producer-x", b"cookie", b"accept", b"x-a"])
values = st.binary(max_size=5).filter(lambda value: b"," not in value)  # see the test above


@given(st.lists(st.tuples(names, values), max_size=12))
def test_no_value_that_came_is_dropped(pairs: Lines) -> None:
    try:
        merged = headers.by_name(pairs)
    except InvalidHeader:
        singles = {name for name, _ in pairs if headers.is_single(name)}
        assert any(len({value.strip(b" \t") for key, value in pairs if key == name}) > 1 for name in singles)
        return
    assert set(merged) == {name for name, _ in pairs}
    for name, value in pairs:
        assert value.strip(b" \t") in merged[name]
