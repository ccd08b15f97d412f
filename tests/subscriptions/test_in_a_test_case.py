"""Requests about subscriptions inside a TestCase, whose transaction no other connection sees."""

import json

import pytest
from django.test import TestCase

from django_durable_streams.models import Stream, Subscription
from django_durable_streams.runtime.test_transactions import InvisibleTransaction
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.testing import StreamsMixin
from tests.asgi_client import AsgiClient

CONFIG = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool"}
JSON = {"content-type": "application/json"}


class SubscriptionsInATestCase(StreamsMixin, TestCase):
    async def test_a_worker_claims_what_was_appended(self) -> None:
        client = self.stream_client
        target = "__ds/subscriptions/s"
        assert (await client.request("PUT", target, JSON, json.dumps(CONFIG).encode())).status == 201
        stream = await Stream.objects.acreate(path="events/a", content_type="text/plain")
        await stream.aappend("x")
        claimed = await client.request("POST", f"{target}/claim", JSON, b'{"worker": "w"}')
        assert claimed.status == 200
        assert [one["path"] for one in claimed.json()["streams"]] == ["events/a"]
        assert await Subscription.objects.acount() == 1


class WithoutTheMixin(TestCase):
    async def test_the_error_says_what_is_missing(self) -> None:
        client = AsgiClient(DurableStreams())
        for method, target in (("GET", "__ds/jwks.json"), ("GET", "__ds/subscriptions/s")):
            with pytest.raises(InvisibleTransaction, match="StreamsMixin"):
                await client.request(method, target)
