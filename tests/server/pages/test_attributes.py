"""The template tags for pages."""

import html
import json
import re

import pytest
from django.template import Context, Template
from django.test import override_settings
from django.urls import NoReverseMatch, set_script_prefix

from django_durable_streams.models import Stream
from django_durable_streams.server.pages.attributes import event_url
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "pages.md"

pytestmark = [pytest.mark.urls("tests.server.pages.urls")]


def render(source: str, **context: object) -> str:
    return Template("{% load durable_streams %}" + source).render(Context(context))


def attributes(source: str, **context: object) -> dict[str, str]:
    """Return the attributes of an element as a browser has them."""
    pairs = re.findall(r'([^ "]+)="([^"]*)"', render(source, **context))
    return {name: html.unescape(value) for name, value in pairs}


def test_the_url_of_a_stream_and_of_a_path() -> None:
    assert render('{% event_url "plain" stream %}', stream=Stream(path="a b/é")) == "/plain/a%20b/%C3%A9"
    assert render('{% event_url "plain" "a" offset="now" as url %}{{ url }}') == "/plain/a?offset=now"
    with pytest.raises(NoReverseMatch):
        render('{% event_url "nowhere" "a" %}')


def test_the_url_in_an_attribute_and_in_the_script_of_the_page() -> None:
    url = event_url("plain", "a'b", "1_2", refusals=True)
    assert url == "/plain/a'b?offset=1_2&refusals=event"
    tag = '{% event_url "plain" path offset="1_2" refusals=True %}'
    assert attributes(f'<a href="{tag}">', path="a'b") == {"href": url}
    (block,) = [one for one in blocks(PAGE, "html+django") if "event_url" in one.text]
    source = block.text.replace("chat-events", "plain")
    script = render(source, stream=Stream(path="a'b"), offset="1_2")
    (literal,) = re.findall(r'new ReconnectingEventSource\("(.*?)"\)', script)
    assert json.loads(f'"{literal}"') == event_url("plain", "a'b", "1_2")


def test_htmx_2() -> None:
    assert attributes('{% htmx2_events "plain" "a" offset="1_2" %}') == {
        "hx-ext": "sse",
        "sse-connect": "/plain/a?offset=1_2&refusals=event",
        "sse-swap": "message",
        "sse-close": "end",
    }
    named = attributes('{% htmx2_events "named" "a" %}')
    assert (named["sse-swap"], named["sse-close"]) == ("news", "over")
    assert attributes('{% htmx2_events "typed" "a" swap="x,y" %}')["sse-swap"] == "x,y"


def test_htmx_4() -> None:
    assert attributes('{% htmx4_events "named" "a\'<b>" %}') == {
        "hx-sse:connect": "/named/a'%3Cb%3E?refusals=event",
        "hx-sse:close": "over",
    }


def test_datastar() -> None:
    (value,) = attributes("{% datastar_events 'plain' \"a'b\" offset='now' %}").values()
    url, options = value.removeprefix("@get('").split("', ", 1)
    assert url.encode().decode("unicode_escape") == "/plain/a'b?offset=now&refusals=event"
    assert options == "{retry: 'always', retryMaxCount: Infinity})"


@pytest.mark.parametrize("path", ["price/$usd", "a/@get('x')", "$a.b/@post(1)", 'a;b"c&d<e>`f'])
def test_a_path_is_no_code_for_datastar(path: str) -> None:
    (value,) = attributes("{% datastar_events 'plain' path %}", path=path).values()
    begin, text, _ = value.split("'", 2)
    assert begin == "@get("
    assert not set('$@;"<>`&') & set(text)
    url = text.encode().decode("unicode_escape")
    assert url == event_url("plain", path, refusals=True)


def test_views_of_the_project_and_script_names() -> None:
    assert attributes('{% htmx4_events "own-view" "a" %}')["hx-sse:close"] == "end"
    set_script_prefix("/app/")
    try:
        with override_settings(FORCE_SCRIPT_NAME="/app"):
            assert attributes('{% htmx4_events "named" "a" %}') == {
                "hx-sse:connect": "/app/named/a?refusals=event",
                "hx-sse:close": "over",
            }
    finally:
        set_script_prefix("/")
