"""URLs that carry their own permission."""

import string
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.access.base import STREAM_ACTIONS, Action
from django_durable_streams.models import Stream
from django_durable_streams.permissions import SignedURLs, sign, signed_url
from django_durable_streams.protocol.errors import InvalidParameter, InvalidPath
from django_durable_streams.server.asgi import _AsgiRequest
from tests.access.operations import OPERATIONS, TEXT, send
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

SIGNED = override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.SignedURLs")
NEEDS = {
    "create": ("create",),
    "create-closed": ("create",),
    "read": ("read",),
    "state": ("read",),
    "long-poll": ("read",),
    "append": ("append",),
    "close": ("close",),
    "append-and-close": ("append", "close"),
    "delete": ("delete",),
}


@pytest.fixture(autouse=True)
def streams(request: pytest.FixtureRequest) -> None:
    if "client" in request.fixturenames:
        request.getfixturevalue("transactional_db")
        Stream.objects.create(path="a", content_type="text/plain").append("abc")


def asked(path: str, query: bytes) -> AccessRequest:
    scope = {"method": "GET", "path": f"/v1/stream/{path}", "query_string": query, "headers": []}
    return AccessRequest(_AsgiRequest(path, scope, None, None))  # type: ignore[arg-type]


def allowed(path: str, token: str | bytes) -> set[str]:
    """What a token allows on a stream."""
    permission = SignedURLs()
    request = asked(path, b"token=" + quote(token, safe="").encode())
    return {action.value for action in Action if getattr(permission, action.method)(None, path, request)}


@pytest.mark.parametrize("operation", NEEDS)
async def test_a_signature_allows_what_it_was_made_for_and_nothing_else(client: AsgiClient, operation: str) -> None:
    path = OPERATIONS[operation][1].partition("?")[0]
    needed = NEEDS[operation]
    others = set(STREAM_ACTIONS) - set(needed)
    with SIGNED:
        assert (await send(client, operation, f"token={sign(path, *others, expires=60)}")).status == 403
        for missing in needed:
            rest = [*others, *(set(needed) - {missing})]
            assert (await send(client, operation, f"token={sign(path, *rest, expires=60)}")).status == 403
        assert (await send(client, operation, f"token={sign('other', *STREAM_ACTIONS, expires=60)}")).status == 403
        assert (await send(client, operation)).status == 403
        assert (await send(client, operation, f"token={sign(path, *needed, expires=60)}")).status in (200, 201, 204)


async def test_a_signed_url_is_used_as_it_is(client: AsgiClient) -> None:
    url = urlsplit(signed_url("a b/ü%", "create", "read", expires=60))
    assert url.path == "/v1/stream/a%20b/%C3%BC%25"
    target = url.path.removeprefix("/v1/stream/") + "?" + url.query
    with SIGNED:
        assert (await client.request("PUT", target, TEXT, b"abc")).status == 201
        assert (await client.get(target)).body == b"abc"


async def test_reads_by_a_signature_can_be_cached(client: AsgiClient) -> None:
    target = f"a?token={sign('a', 'read', expires=60)}"
    with SIGNED:
        first = await client.get(target)
        again = await client.get(target, **{"if-none-match": first.headers["etag"]})
        other = await client.get(f"a?token={sign('a', 'read', 'append', expires=600)}")
    assert first.headers["cache-control"] == "private, no-cache"
    assert (again.status, again.headers["etag"]) == (304, first.headers["etag"])
    assert other.headers["etag"] == first.headers["etag"]


async def test_a_signature_does_not_open_the_source_of_a_fork(client: AsgiClient) -> None:
    with SIGNED:
        assert (await send(client, "fork", f"token={sign('made', *STREAM_ACTIONS, expires=60)}")).status == 403


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("token={0}", 200),
        ("%74oken={0}", 200),  # the same name
        ("token={0}&token={0}", 400),
        ("token=&token={0}", 400),
        ("token={0}&%74oken={0}", 400),
        ("token=", 403),
        ("Token={0}", 403),
        ("x=token={0}", 403),
        ("%26token={0}", 403),
    ],
)
async def test_a_token_comes_once_and_under_its_name(client: AsgiClient, query: str, status: int) -> None:
    with SIGNED:
        assert (await client.get(f"a?{query.format(sign('a', 'read', expires=60))}")).status == status


def test_a_signature_ends_when_it_was_to() -> None:
    for expires in (0, -1, timedelta(seconds=-5), datetime(2020, 1, 1, tzinfo=UTC)):
        assert allowed("a", sign("a", "read", expires=expires)) == set()
    for expires in (5, 5.5, timedelta(seconds=5), datetime.now(UTC) + timedelta(seconds=5)):  # type: ignore[assignment]
        request = asked("a", f"token={sign('a', 'read', expires=expires)}".encode())
        assert SignedURLs().can_read(None, "a", request)
        assert request.expires is not None
        assert 3 <= request.expires - time.time() <= 6


def test_another_key_signs_nothing_here_and_an_old_one_does_while_it_is_kept() -> None:
    with override_settings(SECRET_KEY="old"):
        token = sign("a", "read", expires=60)
        assert allowed("a", token) == {"read"}
    assert allowed("a", token) == set()
    with override_settings(SECRET_KEY_FALLBACKS=["old"]):
        assert allowed("a", token) == {"read"}
    assert allowed("a", token) == set()


@pytest.mark.parametrize("actions", [(), ("write",), ("read", ""), ("can_read",)])
def test_what_means_nothing_is_not_signed(actions: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one or more of"):
        sign("a", *actions, expires=60)


def test_no_path_is_signed_that_no_stream_can_have() -> None:
    with pytest.raises(InvalidPath):
        sign("a/../b", "read", expires=60)


def test_the_root_is_the_projects_or_the_one_that_is_named() -> None:
    assert signed_url("a", "read", expires=60).startswith("/v1/stream/a?token=read.")
    assert signed_url("a", "read", expires=60, root="https://s.example/x/").startswith("https://s.example/x/a?token=")
    assert set(parse_qs(urlsplit(signed_url("a", "read", "close", expires=60)).query)) == {"token"}


TOKEN = sign("some/path", "read", "append", expires=3600)
CHARACTERS = string.ascii_letters + string.digits + "-_.:=+/% \x00é"  # an & would end it


@st.composite
def tampered(draw: st.DrawFn) -> str:
    """A good token with something replaced, taken out or put in."""
    start = draw(st.integers(0, len(TOKEN)))
    end = draw(st.integers(start, min(len(TOKEN), start + 8)))
    return TOKEN[:start] + draw(st.text(CHARACTERS, max_size=8)) + TOKEN[end:]


@given(tampered())
@example(TOKEN.replace("read-append", "read-append-delete"))
@example(TOKEN.upper())
@example(TOKEN + "=")
def test_no_token_that_was_tampered_with_allows_anything(token: str) -> None:
    assert allowed("some/path", token) == ({"read", "append"} if token == TOKEN else set())


@given(st.binary(max_size=200) | st.from_regex(rb"[a-z]+(-[a-z]+)*\.[0-9]{1,12}\.[A-Za-z0-9_-]{20,60}", fullmatch=True))
def test_nothing_that_was_made_up_allows_anything(token: bytes) -> None:
    try:
        assert allowed("some/path", token) == set()
    except InvalidParameter:
        pass


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\\\x7f"), min_size=1, max_size=40)
)
@example("some/path/")
@example("some")
@example("some%2Fpath")
@example("SOME/PATH")
@example("some/path\n")
def test_a_token_is_good_for_no_other_path(path: str) -> None:
    assert allowed(path, TOKEN) == ({"read", "append"} if path == "some/path" else set())


@given(
    st.sampled_from(STREAM_ACTIONS),
    st.integers(0, 10**12 - 1),
    st.text("abcdefghij/.:-0123456789", min_size=1, max_size=20),
)
def test_parts_of_what_is_signed_cannot_be_moved_into_each_other(action: str, until: int, path: str) -> None:
    _, moment, signature = TOKEN.split(".")
    assert allowed(path, f"{action}.{until}.{signature}") == set()
    assert allowed(f"{moment}.some/path", f"read-append.{until}.{signature}") == set()
