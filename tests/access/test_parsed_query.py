"""The parsed query decides, however it is written, and each parameter comes once."""

import asyncio
import time
from typing import Any

import pytest

from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, Permission, sign
from tests.access.test_bearer_tokens import BEARER, token
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

SIGNED = "django_durable_streams.permissions.SignedURLs"

# Ways to write a live read.
SPELLINGS = [
    "live={0}",
    "%6Cive={0}",
    "%6c%69%76%65={0}",
    "l%69ve={0}&x=1",
    "x&live={0}",
    "live=%{1}",
    "&&live={0}&&",
    "x=%26&%6Cive={0}",
]


@pytest.fixture(autouse=True)
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")


def spell(spelling: str, mode: str) -> str:
    return spelling.format(mode, f"{ord(mode[0]):02x}{mode[1:]}")


@pytest.mark.parametrize("permission", ["signed", "bearer"])
@override_streams(POLL_INTERVAL=0.02, LONG_POLL_TIMEOUT=20)
async def test_a_live_read_ends_with_its_token_however_its_query_is_written(
    client: AsgiClient, permission: str
) -> None:
    ends = int(time.time()) + 3

    def credentials() -> str:
        if permission == "signed":
            return f"token={sign('a', 'read', expires=ends - time.time() + 0.01)}"
        return f"access_token={token({'read': ['a']}, exp=ends)}"

    async def follow(spelling: str, mode: str) -> None:
        query = f"{spell(spelling, mode)}&offset=now&{credentials()}"
        async with client.open("GET", f"a?{query}") as exchange:
            await exchange.head()
            while await exchange.chunk() is not None:
                pass
            assert exchange.status == (200 if mode == "sse" else 403 if permission == "signed" else 401), spelling

    with override_streams(PERMISSION_CLASSES=SIGNED if permission == "signed" else BEARER):
        async with asyncio.timeout(15):
            await asyncio.gather(*(follow(spelling, mode) for spelling in SPELLINGS for mode in ("sse", "long-poll")))


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("%74oken={0}", 200),
        ("tok%65n={0}&x=1", 200),
        ("token={0}&token={0}", 400),
        ("token={0}&%74oken={0}", 400),
        ("token={0}&token=", 400),
        ("x=%26token={0}", 403),
        ("x%26token={0}", 403),
        ("token%3D{0}", 403),
        ("TOKEN={0}", 403),
        ("token={0}&offset=-1&offset=-1", 400),
        ("token={0}&offset=-1&%6fffset=-1", 400),
        ("token={0}&offset=-1&live=sse&live=long-poll", 400),
        ("token={0}&cursor=1&%63ursor=1", 400),
        ("token={0}&other=1&other=2", 200),
        ("token={0}&x=%FF", 400),
    ],
)
@pytest.mark.slow
async def test_what_decides_comes_once_in_whatever_letters(entry: str, query: str, status: int, engines: None) -> None:
    with override_streams(PERMISSION_CLASSES=SIGNED):
        reply = await EntryPoint(entry).request("GET", "a?" + query.format(sign("a", "read", expires=60)))
    assert reply.status == status, reply.body


@pytest.mark.parametrize("entry", ENTRY_POINTS)
async def test_a_token_in_the_query_has_one_name_however_it_is_written(entry: str, engines: None) -> None:
    good = token({"read": ["a"]})
    with override_streams(PERMISSION_CLASSES=BEARER):
        for query, status in (
            (f"%61ccess_token={good}", 200),
            (f"access%5Ftoken={good}", 200),
            (f"access_token={good}&%61ccess_token={good}", 400),
            (f"x=%26access_token={good}", 401),
        ):
            assert (await EntryPoint(entry).request("GET", f"a?{query}")).status == status
        header = {"authorization": f"Bearer {good}"}
        assert (await EntryPoint(entry).request("GET", f"a?%61ccess_token={good}", header)).status == 401


class Own(Permission):
    """A project's own class, which reads the query."""

    in_memory = True
    needs_user = False

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        assert not hasattr(request, "raw_query")
        return request.query.getlist("key") == ["a b", "c"] and request.parameter("other") == "+"


async def test_a_project_sees_the_same_parameters(client: AsgiClient) -> None:
    with override_streams(PERMISSION_CLASSES="tests.access.test_parsed_query.Own"):
        assert (await client.get("a?key=a+b&%6Bey=c&other=%2B")).status == 200
        assert (await client.get("a?key=c&key=a%20b&other=%2B")).status == 403
        assert (await client.get("a?key=a+b&key=c&other=%2B&other=%2B")).status == 400
