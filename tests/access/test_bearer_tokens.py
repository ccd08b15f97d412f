"""JWTs that say which streams their holders may use."""

import hashlib
import hmac
import string
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.access.base import Action
from django_durable_streams.models import Stream
from django_durable_streams.permissions import BearerTokens
from django_durable_streams.protocol.errors import InvalidParameter
from django_durable_streams.server.asgi import _AsgiRequest
from tests.access.operations import OPERATIONS, send
from tests.access.test_signed_urls import NEEDS
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

SECRET = "a secret that is long enough for every algorithm of this kind, which is sixty-four bytes"
PRIVATE = ec.generate_private_key(ec.SECP256R1())
PUBLIC = (
    PRIVATE.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
BEARER = {
    "CLASS": "django_durable_streams.permissions.BearerTokens",
    "KEY": SECRET,
    "ALGORITHMS": ["HS256"],
    "AUDIENCE": "streams",
    "ISSUER": "login",
}
JWT = override_streams(PERMISSION_CLASSES=BEARER)


@pytest.fixture(autouse=True)
def streams(request: pytest.FixtureRequest) -> None:
    if "client" in request.fixturenames:
        request.getfixturevalue("transactional_db")
        Stream.objects.create(path="a", content_type="text/plain").append("abc")


def token(claim: Any, key: Any = SECRET, algorithm: str | None = "HS256", headers: Any = None, **claims: Any) -> str:
    """A token that is good but for what is given. A claim that is None is left out."""
    payload = {"exp": int(time.time()) + 60, "aud": "streams", "iss": "login", "streams": claim, **claims}
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, key, algorithm, headers)


def permission(**options: Any) -> BearerTokens:
    return BearerTokens(**{"key": SECRET, "algorithms": ["HS256"], "audience": "streams", "issuer": "login", **options})


def asked(query: bytes = b"", *headers: tuple[bytes, bytes], path: str = "a") -> AccessRequest:
    scope = {"method": "GET", "path": f"/v1/stream/{path}", "query_string": query, "headers": list(headers)}
    return AccessRequest(_AsgiRequest(path, scope, None, None))  # type: ignore[arg-type]


def allowed(bearer: str | bytes, tokens: BearerTokens | None = None, path: str = "a") -> set[str]:
    """What a token allows on a stream."""
    value = bearer.encode("latin-1", "replace") if isinstance(bearer, str) else bearer
    request = asked(b"", (b"authorization", b"Bearer " + value), path=path)
    bearer_tokens = tokens or permission()
    return {action.value for action in Action if getattr(bearer_tokens, action.method)(None, path, request)}


@pytest.mark.parametrize("operation", NEEDS)
async def test_a_token_allows_what_its_claim_says_and_nothing_else(client: AsgiClient, operation: str) -> None:
    path = OPERATIONS[operation][1].partition("?")[0]
    needed = NEEDS[operation]
    everything = {action.value: [path] for action in Action}

    def bearer(claim: dict[str, list[str]]) -> dict[str, str]:
        return {"authorization": f"Bearer {token(claim)}"}

    with JWT:
        for missing in needed:
            rest = {action: paths for action, paths in everything.items() if action != missing}
            assert (await send(client, operation, headers=bearer(rest))).status == 401
        elsewhere = {action: ["other/**"] for action in everything}
        assert (await send(client, operation, headers=bearer(elsewhere))).status == 401
        refused = await send(client, operation)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        good = {action: ["other", path] for action in needed}
        assert (await send(client, operation, headers=bearer(good))).status in (200, 201, 204)


async def test_a_browsers_event_source_brings_its_token_in_the_query(client: AsgiClient) -> None:
    with JWT:
        target = f"a?offset=-1&live=sse&access_token={token({'read': ['a']})}"
        async with client.open("GET", target) as exchange:
            assert b"data:abc" in (await exchange.chunk() or b"")


async def test_a_live_read_ends_when_its_token_expires(client: AsgiClient) -> None:
    moment = int(time.time()) + 2
    with override_streams(PERMISSION_CLASSES=BEARER, POLL_INTERVAL=0.02):
        bearer = token({"read": ["a"]}, exp=moment)
        async with client.open("GET", f"a?offset=now&live=sse&access_token={bearer}") as exchange:
            while await exchange.chunk() is not None:
                pass
            assert 0 <= time.time() - moment < 1


BAD: dict[str, Callable[[], str]] = {
    "another key": lambda: token({"read": ["a"]}, SECRET[::-1]),
    "another algorithm": lambda: token({"read": ["a"]}, algorithm="HS512"),
    "no algorithm": lambda: token({"read": ["a"]}, None, "none"),
    "expired": lambda: token({"read": ["a"]}, exp=int(time.time()) - 1),
    "no expiry": lambda: token({"read": ["a"]}, exp=None),
    "expiry is endless": lambda: token({"read": ["a"]}, exp=float("inf")),
    "expiry is not a number of JSON": lambda: token({"read": ["a"]}, exp=float("nan")),
    "expiry is no number": lambda: jwt.encode(
        {"exp": "soon", "aud": "streams", "iss": "login", "streams": {"read": ["a"]}}, SECRET, "HS256"
    ),
    "not yet": lambda: token({"read": ["a"]}, nbf=int(time.time()) + 60),
    "another audience": lambda: token({"read": ["a"]}, aud="others"),
    "no audience": lambda: token({"read": ["a"]}, aud=None),
    "another issuer": lambda: token({"read": ["a"]}, iss="others"),
    "no issuer": lambda: token({"read": ["a"]}, iss=None),
    "no claim": lambda: token(None),
    "a claim that is a list": lambda: token(["read"]),
    "a claim that is a text": lambda: token("read"),
    "an unknown action": lambda: token({"read": ["a"], "write": ["a"]}),
    "patterns that are a text": lambda: token({"read": "a"}),
    "a pattern that is no text": lambda: token({"read": ["a", 1]}),
    "a pattern that means nothing": lambda: token({"read": ["a", "**/x"]}),
    "a pattern with a user": lambda: token({"read": ["a", "{user.pk}"]}),
}


@pytest.mark.parametrize("why", BAD)
def test_tokens_that_are_not_good_in_every_respect_allow_nothing(why: str) -> None:
    assert allowed(BAD[why]()) == set()
    assert allowed(token({"read": ["a"]})) == {"read"}


def test_an_audience_has_to_be_expected() -> None:
    assert allowed(token({"read": ["a"]}), permission(audience=None)) == set()
    assert allowed(token({"read": ["a"]}, aud=None), permission(audience=None)) == {"read"}
    assert allowed(token({"read": ["a"]}, aud=["x", "streams"])) == {"read"}


def test_public_keys_by_their_ids() -> None:
    tokens = permission(key={"new": PUBLIC, "old": SECRET}, algorithms=["ES256"])
    claim = {"read": ["a"]}
    assert allowed(token(claim, PRIVATE, "ES256", {"kid": "new"}), tokens) == {"read"}
    assert allowed(token(claim, PRIVATE, "ES256", {"kid": "gone"}), tokens) == set()
    assert allowed(token(claim, PRIVATE, "ES256"), tokens) == set()
    assert allowed(token(claim, SECRET, "HS256", {"kid": "old"}), tokens) == set()


def test_a_public_key_is_no_secret_to_sign_with() -> None:
    tokens = permission(key=PUBLIC, algorithms=["ES256"])
    good = token({"read": ["a"]}, PRIVATE, "ES256")
    header = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}').decode()
    body = good.split(".")[1]
    signature = hmac.new(PUBLIC.encode(), f"{header}.{body}".encode(), hashlib.sha256).digest()
    forged = f"{header}.{body}.{jwt.utils.base64url_encode(signature).decode()}"
    assert allowed(good, tokens) == {"read"}
    assert allowed(forged, tokens) == set()


@pytest.mark.parametrize(
    "options",
    [{"algorithms": []}, {"algorithms": ["none"]}, {"algorithms": ["XX1"]}, {"algorithms": "HS256"}, {"key": ""}],
    ids=str,
)
def test_options_that_cannot_be_right(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        permission(**options)


def test_there_is_one_token_or_none() -> None:
    good = token({"read": ["a"]}).encode()
    header = (b"authorization", b"Bearer " + good)
    tokens = permission()
    assert tokens.can_read(None, "a", asked(b"", header))
    assert tokens.can_read(None, "a", asked(b"offset=-1&access_token=" + good))
    assert tokens.can_read(None, "a", asked(b"", (b"authorization", b"bearer  " + good)))
    for request in (
        asked(b"access_token=" + good, header),
        asked(b"xaccess_token=" + good),
        asked(b"", (b"authorization", b"Basic " + good)),
        asked(b"", (b"authorization", good)),
        asked(b"", (b"authorization", b"Bearer")),
        asked(b"", (b"authorization", b"Bearer " + b"x" * 10_000)),
    ):
        assert not tokens.can_read(None, "a", request)
    with pytest.raises(InvalidParameter):
        tokens.can_read(None, "a", asked(b"access_token=" + good + b"&access_token=" + good))


async def test_a_token_that_came_twice_is_one_and_two_tokens_are_refused(client: AsgiClient) -> None:
    header = (b"authorization", f"Bearer {token({'read': ['a']})}".encode())
    other = (b"authorization", f"Bearer {token({'read': ['a', 'b']})}".encode())
    with JWT:
        assert (await client.request("GET", "a", [header])).status == 200
        assert (await client.request("GET", "a", [header, header])).status == 200
        assert (await client.request("GET", "a", [header, other])).status == 400


def test_a_token_that_was_good_is_not_good_for_ever() -> None:
    tokens = permission()
    bearer = token({"read": ["a"]}, exp=int(time.time()) + 1)
    assert allowed(bearer, tokens) == {"read"}
    time.sleep(1.1)
    assert allowed(bearer, tokens) == set()


GOOD = token({"read": ["some/path"], "append": ["some/path"]}, exp=int(time.time()) + 36_000)
TOKENS = permission()
CHARACTERS = string.ascii_letters + string.digits + "-_.=+/ \x00é"


@st.composite
def tampered(draw: st.DrawFn) -> str:
    """A good token with something replaced, taken out or put in."""
    start = draw(st.integers(0, len(GOOD)))
    end = draw(st.integers(start, min(len(GOOD), start + 8)))
    return GOOD[:start] + draw(st.text(CHARACTERS, max_size=8)) + GOOD[end:]


def is_the_same(bearer: str) -> bool:
    """Base64 has bits to spare in its last character, and decoders skip what is around: the bytes decide."""
    try:
        parts = [jwt.utils.base64url_decode(part) for part in bearer.strip().split(".")]
    except ValueError:
        return False
    return parts == [jwt.utils.base64url_decode(part) for part in GOOD.split(".")]


@given(tampered())
def test_no_token_that_was_tampered_with_allows_anything(bearer: str) -> None:
    actions = allowed(bearer, TOKENS, "some/path")
    assert actions == set() or (actions == {"read", "append"} and is_the_same(bearer))


@given(st.binary(max_size=300) | st.from_regex(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", fullmatch=True))
def test_nothing_that_was_made_up_allows_anything(bearer: bytes) -> None:
    assert allowed(bearer, TOKENS, "some/path") == set()


claims = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["read", "append", "x"]), inner),
)


@given(claims)
def test_whatever_a_claim_is_it_allows_only_what_it_says(claim: Any) -> None:
    actions = allowed(token(claim), path="some/path")
    for action in actions:
        assert any("*" in text or text == "some/path" for text in claim[action])


@pytest.mark.parametrize("pattern", ["/board", "board/", "a//b", "/**", "../b", "board", "b/**"])
@pytest.mark.parametrize("action", [Action.READ, Action.LIST, Action.SUBSCRIBE])
def test_a_pattern_that_no_path_matches_is_named(pattern: str, action: Action) -> None:
    request = asked(b"access_token=" + token({action.value: [pattern]}).encode())
    assert not getattr(permission(), action.method)(None, "x", request)
    is_named = any(f"No path matches {pattern!r}: a path has no slash" in reason for reason in request.reasons)
    assert is_named is (pattern not in ("board", "b/**") and action is not Action.SUBSCRIBE)
