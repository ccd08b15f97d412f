"""The admin in another language."""

import pytest
from django.test import Client, override_settings
from django.utils.translation import override

from django_durable_streams.admin.forms import CreateForm
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import InvalidJSON, StreamClosed
from tests.admin.pages import url

pytestmark = pytest.mark.django_db

CODES = ["de", "es", "fr", "ja", "zh-hans"]


@pytest.mark.parametrize("code", CODES)
def test_the_pages_are_shown_in_each_language(admin_client: Client, code: str) -> None:
    stream = Stream.objects.create(path="a", content_type="application/json", data={"n": 1}, ttl=60)
    stream.retain(messages=1)
    pages = [url("changelist"), url("add"), *(url(name, stream) for name in ("change", "fork", "close", "keep"))]
    with override_settings(LANGUAGE_CODE=code):
        for page in pages:
            response = admin_client.get(page)
            assert response.status_code == 200
            assert f'lang="{code}"' in response.content.decode()
        text = admin_client.get(url("change", stream)).content.decode()
    assert "%s s." in text or "%s" in text  # the script fills in the seconds of the next attempt
    assert "Lifetime and retention" not in text


def test_refusals_of_the_store_are_translated() -> None:
    with override("de"):
        form = CreateForm({})
        form.refuse(StreamClosed("The stream has ended; nothing can be appended to it."))
        form.refuse(InvalidJSON("The body is not valid JSON: line 1."))
        (error,) = form.non_field_errors()
        assert str(error).endswith("ihm kann nichts mehr angehängt werden.")
        assert "Ungültiges JSON: The body is not valid JSON: line 1." in form.errors["text"]
    form = CreateForm({})
    form.refuse(InvalidJSON("The body is not valid JSON: line 1."))
    assert "The body is not valid JSON: line 1." in form.errors["text"]


def test_the_texts_of_the_store_are_those_that_have_translations(admin_client: Client) -> None:
    source = Stream.objects.create(path="gone", content_type="text/plain", data="x")
    source.fork("copy")
    source.delete()
    with override_settings(LANGUAGE_CODE="de"):
        response = admin_client.post(url("add"), {"path": "gone", "content_type": "text/plain"})
    (error,) = response.context["form"].errors["path"]
    assert error.startswith("Ein gelöschter Stream belegt diesen Pfad, solange er Forks hat.")
