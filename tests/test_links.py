"""Links to streams, in templates and in Python."""

from typing import Any

import pytest
from django.template import engines as template_engines
from django.test import override_settings
from django.urls import set_script_prefix

from django_durable_streams.links import stream_url
from django_durable_streams.models import Stream
from django_durable_streams.permissions import signed_url

PATH = "chat/größe 1?&<#%"
QUOTED = "chat/gr%C3%B6%C3%9Fe%201%3F%26%3C%23%25"


def render(source: str, **context: Any) -> str:
    return template_engines["django"].from_string("{% load durable_streams %}" + source).render(context)


def test_it_leads_to_where_the_urls_are_included() -> None:
    assert stream_url("chat/42") == "/v1/stream/chat/42"
    with override_settings(ROOT_URLCONF=Elsewhere):
        assert stream_url("chat/42") == "/elsewhere/chat/42"
        assert signed_url("chat/42", "read", expires=60).startswith("/elsewhere/chat/42?token=")


def test_it_leads_to_the_asgi_application_where_no_urls_are() -> None:
    with override_settings(ROOT_URLCONF=Empty):
        assert stream_url("chat/42") == "/v1/stream/chat/42"
        set_script_prefix("/app/")
        try:
            assert stream_url("chat/42") == "/app/v1/stream/chat/42"
        finally:
            set_script_prefix("/")


def test_it_leads_to_where_the_setting_says(settings: Any) -> None:
    settings.DURABLE_STREAMS = {"URL_PREFIX": "https://streams.example.com/"}
    assert stream_url("chat/42") == "https://streams.example.com/chat/42"


def test_paths_are_encoded() -> None:
    assert stream_url(PATH) == f"/v1/stream/{QUOTED}"
    assert stream_url(Stream(path=PATH)) == f"/v1/stream/{QUOTED}"


def test_templates_take_streams_and_paths() -> None:
    assert render("{% stream_url 'chat/42' %}") == "/v1/stream/chat/42"
    assert render("{% stream_url stream %}", stream=Stream(path=PATH)) == f"/v1/stream/{QUOTED}"
    assert render("{% stream_url path as url %}<a href='{{ url }}'>", path="a") == "<a href='/v1/stream/a'>"


@pytest.mark.parametrize("path", ["' onclick='x", '"><script>'])
def test_nothing_comes_out_of_an_attribute(path: str) -> None:
    assert not set("'\"<> ") & set(render("{% stream_url path %}", path=path))


class Elsewhere:
    from django.urls import include, path

    urlpatterns = [path("elsewhere/", include("django_durable_streams.urls"))]


class Empty:
    urlpatterns: list[Any] = []
