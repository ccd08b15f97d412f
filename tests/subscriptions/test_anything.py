"""Requests about subscriptions that make no sense: nothing breaks, and a refused request changes nothing."""

import asyncio
import json
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from django_durable_streams.models import Subscription
from django_durable_streams.subscriptions import tokens
from tests.server.entry_points import EntryPoint

OFFSET = "0000000000000000_0000000000000000"
CONFIG = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool", "lease_ttl_ms": 600_000}

methods = st.sampled_from(["GET", "PUT", "PUT", "POST", "POST", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS"])
words = st.sampled_from(
    ["claim", "ack", "release", "callback", "streams", "a", "%2F", "%00", "%C3%A9", "..", "", "%25", "x" * 300]
)
targets = st.lists(words, max_size=3).map(lambda rest: "/".join(["__ds/subscriptions/known", *rest]))
scalars = st.sampled_from(
    [None, True, 0, -1, 7, 2**63, 1.5, "", "a", "a/b", "*", "**", "\0", "\ud800", OFFSET, "-1", "now", "webhook", "w_1"]
)
values = (
    scalars
    | st.lists(scalars, max_size=3)
    | st.dictionaries(st.sampled_from(["url", "stream", "path", "offset"]), scalars)
)
fields = st.sampled_from(
    [
        "type",
        "pattern",
        "streams",
        "webhook",
        "wake_stream",
        "lease_ttl_ms",
        "description",
        "worker",
        "wake_id",
        "generation",
        "acks",
        "done",
        "x",
    ]
)
bodies = st.dictionaries(fields, values | st.lists(values, max_size=2), max_size=5)
authorizations = st.sampled_from(["", "Bearer", "Bearer x", "Basic eDp4", "Bearer {claim}", "Bearer {callback}"])
_numbers = count()


def judge(method: str, status: int, body: bytes, content_type: str) -> None:
    assert status < 500, body
    if method == "HEAD":
        assert body == b""
    elif status >= 400:
        content = json.loads(body)
        if content_type == "application/json":
            assert set(content["error"]) >= {"code", "message"}
        else:
            assert content_type == "application/problem+json"
            assert content["status"] == status


@pytest.mark.parametrize("name", ["asgi", "direct"])
def test_no_request_breaks_the_server_or_changes_what_it_was_refused(engines: None, name: str) -> None:
    entry = EntryPoint(name)

    @examples(max_examples=100)
    @given(methods, targets, authorizations, bodies)
    @example("PUT", "__ds/subscriptions/known", "", {"type": "pull-wake", "streams": ["a"], "wake_stream": "\ud800"})
    @example("POST", "__ds/subscriptions/known/claim", "", {"worker": "w"})
    @example(
        "POST",
        "__ds/subscriptions/known/ack",
        "Bearer {claim}",
        {"wake_id": "w_1", "generation": 7, "acks": [{"stream": "a", "offset": OFFSET}]},
    )
    def check(method: str, target: str, authorization: str, body: dict[str, Any]) -> None:
        runner.run(send(method, target, authorization, body))

    async def send(method: str, target: str, authorization: str, body: dict[str, Any]) -> None:
        existing = f"__ds/subscriptions/s{next(_numbers)}"
        assert (await entry.request("PUT", existing, {}, json.dumps(CONFIG).encode())).status == 201
        before = (await entry.request("GET", existing)).body
        subscription = Subscription(pk=1, generation=0)
        own = {purpose: tokens.make(subscription, purpose) for purpose in ("claim", "callback")}
        headers = {"authorization": authorization.format(**own)}
        target = target.replace("__ds/subscriptions/known", existing)
        reply = await entry.request(method, target, headers, json.dumps(body).encode())
        judge(method, reply.status, reply.body, reply.headers.get("content-type", ""))
        if reply.status >= 400:
            assert (await entry.request("GET", existing)).body == before

    with asyncio.Runner() as runner:
        check()
