"""Permissions in the tests of projects, inside the transaction of a TestCase."""

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import TestCase

from django_durable_streams.models import Stream
from django_durable_streams.testing import StreamClient, StreamsMixin
from tests.access.conftest import grant
from tests.overriding import override_streams


@override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.ModelPermissions")
class PermissionTests(StreamsMixin, TestCase):
    def setUp(self) -> None:
        super().setUp()
        Stream.objects.create(path="a", content_type="text/plain")
        self.user = User.objects.create_user("ann")

    async def test_users_of_the_transaction_are_found_and_need_no_csrf_token(self) -> None:
        client = self.stream_client
        assert (await client.post("a", b"x", content_type="text/plain")).status == 403
        await client.aforce_login(self.user)
        assert (await client.post("a", b"x", content_type="text/plain")).status == 403
        await sync_to_async(grant)(self.user, "change")
        assert (await client.post("a", b"x", content_type="text/plain")).status == 204

    async def test_so_are_they_at_the_urls(self) -> None:
        await sync_to_async(grant)(self.user, "change")
        assert (await self.async_client.post("/v1/stream/a", b"x", content_type="text/plain")).status_code == 403
        await self.async_client.aforce_login(self.user)
        assert (await self.async_client.post("/v1/stream/a", b"x", content_type="text/plain")).status_code == 204

    def test_so_are_they_under_wsgi(self) -> None:
        grant(self.user, "change")
        assert self.client.post("/v1/stream/a", b"x", content_type="text/plain").status_code == 403
        self.client.force_login(self.user)
        assert self.client.post("/v1/stream/a", b"x", content_type="text/plain").status_code == 204

    async def test_tokens_are_asked_for_where_a_test_wants_them(self) -> None:
        await sync_to_async(grant)(self.user, "change")
        client = StreamClient(enforce_csrf_checks=True)
        await client.aforce_login(self.user)
        assert (await client.post("a", b"x", content_type="text/plain")).status == 403
