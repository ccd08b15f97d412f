"""Event sources in a project's own tests: they work inside the transaction of a `TestCase`."""

from django.contrib.auth.models import User
from django.http import StreamingHttpResponse
from django.test import TestCase, override_settings

from django_durable_streams.models import Stream
from django_durable_streams.testing import StreamsMixin
from tests.event_stream import events_of


@override_settings(ROOT_URLCONF="tests.server.pages.urls")
class PageCase(StreamsMixin, TestCase):
    """The data of the test is committed never."""

    @classmethod
    def setUpTestData(cls) -> None:
        User.objects.create_user("somebody")
        Stream.objects.create(path="a", content_type="application/json", data=1, closed=True)

    async def test_a_renderer_sees_the_data_of_the_test(self) -> None:
        response = await self.async_client.get("/objects/a")
        assert isinstance(response, StreamingHttpResponse)
        raw = b"".join([chunk async for chunk in response])
        event, _ = events_of(raw).events
        assert event.data == '{"message":1,"count":1}'
