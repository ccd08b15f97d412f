"""The log names the reason of a refusal, and the client does not learn it."""

import logging
import time

import pytest

from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.access.users import User
from django_durable_streams.models import Stream
from django_durable_streams.permissions import Permission, sign
from tests.access.operations import send
from tests.access.test_bearer_tokens import BEARER, token
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

PACKAGE = "django_durable_streams.permissions"
SIGNED = override_streams(PERMISSION_CLASSES=f"{PACKAGE}.SignedURLs")


class Reasonable(Permission):
    """Refuses everything, with a reason that is no format."""

    async def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        request.explain("The room is 100% full.")
        return False


@pytest.fixture(autouse=True)
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")


async def refused(client: AsgiClient, caplog: pytest.LogCaptureFixture, query: str) -> tuple[str, bytes]:
    """The line in the log and the body of a read that is refused."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "django_durable_streams.access"):
        reply = await send(client, "read", query)
    assert reply.status in (401, 403)
    (record,) = [entry for entry in caplog.records if entry.name == "django_durable_streams.access"]
    return record.getMessage(), reply.body


@SIGNED
async def test_the_log_tells_links_apart_that_the_client_cannot(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {
        f"token={sign('a', 'read', expires=-60)}": "The signed URL expired at 20",
        f"token={sign('a', 'append', 'close', expires=60)}": "The signed URL is for: append, close.",
        f"token={sign('b', 'read', expires=60)}": "The signature of the URL is wrong",
        "token=nonsense": "is not one of a signed URL",
        "": "The URL has no token",
    }
    outcomes = {query: await refused(client, caplog, query) for query in expected}
    for query, reason in expected.items():
        assert reason in outcomes[query][0]
    assert len({line for line, _ in outcomes.values()}) == len(expected)
    assert len({body for _, body in outcomes.values()}) == 1


@override_streams(PERMISSION_CLASSES=BEARER)
async def test_the_log_names_the_fault_of_a_bearer_token(client: AsgiClient, caplog: pytest.LogCaptureFixture) -> None:
    good = {"read": ["a"]}
    expected = {
        "": "There is no bearer token",
        "access_token=x": "no valid JWT",
        f"access_token={token(good, exp=int(time.time()) - 5)}": "has expired (exp)",
        f"access_token={token(good, nbf=int(time.time()) + 500)}": "not valid yet (nbf, iat)",
        f"access_token={token(good, aud='others')}": "another audience (aud)",
        f"access_token={token(good, iss='others')}": "another issuer (iss)",
        f"access_token={token(good, exp=None)}": "lacks exp",
        f"access_token={token(good, key=64 * 'k')}": "The signature of the bearer token is wrong",
        f"access_token={token(good, key=64 * 'k', algorithm='HS512')}": "not one of ALGORITHMS",
        f"access_token={token({'read': ['b']})}": "no pattern for this action and path",
    }
    outcomes = {query: await refused(client, caplog, query) for query in expected}
    for query, reason in expected.items():
        assert reason in outcomes[query][0]
        assert "eyJ" not in outcomes[query][0]  # no part of a token
    assert len({body for _, body in outcomes.values()}) == 1


async def test_reasons_of_all_classes_and_of_the_project_are_logged(
    client: AsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    classes = [{"CLASS": f"{PACKAGE}.Owner", "OWNER": "users/{user.pk}/**"}, f"{__name__}.Reasonable"]
    with override_streams(PERMISSION_CLASSES=classes):
        line, body = await refused(client, caplog, "")
    assert line.endswith("OWNER is for users who are logged in. The room is 100% full.")
    assert b"100%" not in body


@override_streams(PERMISSION_CLASSES=[f"{PACKAGE}.AllowAll"])
@pytest.mark.parametrize("header", [("sec-fetch-dest", "script"), ("service-worker", "script")])
async def test_a_stream_that_a_page_wants_to_run_is_refused_with_a_line(
    client: AsgiClient, caplog: pytest.LogCaptureFixture, header: tuple[str, str]
) -> None:
    with caplog.at_level(logging.WARNING, "django_durable_streams.access"):
        assert (await send(client, "read", headers=dict([header]))).status == 403
    (record,) = [entry for entry in caplog.records if entry.name == "django_durable_streams.access"]
    assert record.getMessage().startswith("read of a is refused at 127.0.0.1. A page wants to run")
