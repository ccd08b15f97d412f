"""docs/subscriptions.md says what is there, and its commands work in their order."""

import asyncio
import json
import re
import shlex
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_durable_streams.access.base import Permission
from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.protocol import subscriptions
from django_durable_streams.protocol.subscription_bodies import _ConfigFields, parse_wake_request
from django_durable_streams.pull_wake import ClaimedStream, PullSubscription, SyncWake, Wake, WakeMessage
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.subscriptions import backoff, extra, routes, service, tokens
from django_durable_streams.subscriptions.pending import LINKS_PER_WAKE
from django_durable_streams.subscriptions.pull_wake.subscription import POLL_INTERVAL
from django_durable_streams.subscriptions.pull_wake.wake import RENEWALS_PER_LEASE
from tests.asgi_client import AsgiClient
from tests.docs.pages import ROOT, blocks, code, section, table

PAGE = ROOT / "docs" / "subscriptions.md"
TEXT = " ".join(PAGE.read_text().split())
STREAMS = "http://localhost:8000/v1/stream/"


def commands() -> list[tuple[str, int]]:
    """The commands of the page in their order, with their statuses. Not those for a webhook's receiver."""
    annotated = []
    for block in blocks(PAGE, "sh"):
        for part in block.text.strip().split("\n\n"):
            command, _, status = part.partition("  # ")
            if status:
                annotated.append((command, int(status)))
    return annotated


def request_of(command: str, variables: dict[str, str]) -> tuple[str, str, dict[str, str], bytes]:
    """What a command sends."""
    command = re.sub(r"\$([A-Z_]+)", lambda name: variables[name[1]], command)
    words = iter(shlex.split(command.replace("\\\n", " "))[1:])
    method, url, headers, body = "GET", "", {}, b""
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name.lower()] = value
        elif word == "-d":
            body = next(words).encode()
        else:
            url = word
    assert url.startswith(STREAMS)
    return method, url.removeprefix(STREAMS), headers, body


async def test_the_commands_work_in_their_order(engines: None) -> None:
    client = AsgiClient(DurableStreams())
    variables: dict[str, str] = {}
    assert len(commands()) == 8
    for command, status in commands():
        reply = await client.request(*request_of(command, variables))
        assert (command, reply.status) == (command, status), reply.body
        if "/claim" in command:
            claimed = reply.json()
            assert set(claimed) == set(shown_claim())
            assert set(claimed["streams"][0]) == set(shown_claim()["streams"][0])
            variables = {
                "TOKEN": claimed["token"],
                "WAKE_ID": claimed["wake_id"],
                "GENERATION": str(claimed["generation"]),
                "OFFSET": claimed["streams"][0]["tail_offset"],
            }
    assert reply.json() == {"ok": True, "next_wake": False}


def shown_claim() -> dict[str, Any]:
    (block,) = blocks(PAGE, "json")
    claim: dict[str, Any] = json.loads(block.text)
    return claim


def test_the_body_of_a_callback_can_be_read() -> None:
    (block,) = [block for block in blocks(PAGE, "sh") if "$CALLBACK_URL" in block.text]
    assert parse_wake_request(shlex.split(block.text)[-1].encode()).done


def test_the_table_of_requests_is_complete() -> None:
    shown = set()
    for request, _, answer in table(section(PAGE, "Requests").partition("### ")[0]):
        method, _, path = code(request).partition(" ")
        shown.add((method, path.removeprefix("__ds/subscriptions/ID").replace("PATH", ""), answer[:3]))
    routed = {(method, path) for path, methods in routes._ROUTES.items() for method in methods}
    assert {(method, path) for method, path, _ in shown} == routed | {("GET", "__ds/jwks.json")}


def test_the_table_of_fields_is_complete() -> None:
    shown = {code(row[0]) for row in table(section(PAGE, "Create"))}
    assert shown == set(_ConfigFields.__struct_fields__)


def test_the_table_of_errors_is_complete_and_right() -> None:
    shown = {(code(name), int(status)) for name, status, _ in table(section(PAGE, "Errors"))}
    errors = [
        subscriptions.invalid_request("x"),
        subscriptions.webhook_url_rejected("x"),
        subscriptions.token_invalid(),
        subscriptions.token_expired(),
        subscriptions.subscription_not_found(),
        subscriptions.subscription_already_exists(),
        subscriptions.already_claimed("w", 1),
        subscriptions.no_pending_work(),
        subscriptions.fenced(),
        subscriptions.invalid_offset("x"),
    ]
    assert shown == {(error.error_code, error.status) for error in errors} | {(extra.WEBHOOKS_NOT_INSTALLED, 501)}


@pytest.mark.parametrize(
    "text",
    [
        f"at most 1 MiB and {subscriptions.MAX_STREAMS:,} streams",
        f"{subscriptions.MIN_LEASE_MS} to {subscriptions.MAX_LEASE_MS}, by default {subscriptions.DEFAULT_LEASE_MS}",
        f"at most {subscriptions.MAX_DESCRIPTION_LENGTH:,} characters",
        f"at most {LINKS_PER_WAKE:,} streams",
        f"after {service.LINK_SECONDS:.0f} seconds",
        "valid for an hour",
    ],
)
def test_the_numbers_are_those_of_the_code(text: str) -> None:
    assert text in TEXT
    assert (routes.MAX_BODY_BYTES, tokens.TOKEN_SECONDS) == (1024 * 1024, 3600)


def test_the_method_that_is_named_is_there() -> None:
    assert "`can_subscribe(user, subscription_id, request)`" in TEXT
    assert callable(Permission.can_subscribe)


def python(number: int) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(blocks(PAGE, "python")[number].text, scope)
    return scope


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.01)


async def test_the_worker_works(engines: None) -> None:
    scope = python(0)
    sent: list[Any] = []

    async def send_mail(message: WakeMessage) -> None:
        sent.append(message.value)

    scope["send_mail"] = send_mail
    task = asyncio.ensure_future(scope["work"]())
    stream = await Stream.objects.acreate(path="orders/1", content_type="application/json")
    # Not only the subscription: a stream that is there already is followed from its tail at the time of its link.
    await sync_to_async(wait_until)(SubscriptionLink.objects.exists)
    await stream.aappend({"total": 12})
    await asyncio.to_thread(wait_until, lambda: sent or task.done())
    task.cancel()
    await asyncio.wait([task])
    assert sent == [{"total": 12}]


def test_the_worker_of_another_server_can_be_made() -> None:
    assert python(1)["mailer"].name == "mailer"


def test_the_numbers_of_workers_are_those_of_the_code() -> None:
    text = " ".join(section(PAGE, "Workers in Python").split())
    assert f"`poll_interval` ({POLL_INTERVAL:.0f} seconds)" in text
    assert RENEWALS_PER_LEASE == 3
    assert "extended after each third of it" in text
    assert (backoff.MIN_BACKOFF, backoff.MAX_BACKOFF) == (1, 60)
    assert "after 1 second, then after 2, 4 and so on, up to a minute" in text


@pytest.mark.parametrize("kind", [PullSubscription, Wake, SyncWake, ClaimedStream, WakeMessage])
def test_the_table_of_objects_is_complete(kind: type) -> None:
    text = section(PAGE, "Workers in Python")
    shown = {name for span in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"\w+", span)}
    names = {name for name in dir(kind) if not name.startswith("_")}
    if kind is Wake:
        names = (names - {"start_heartbeats", "stop_heartbeats"}) | {"is_over", "has_progress"}
    assert names - shown == set()
