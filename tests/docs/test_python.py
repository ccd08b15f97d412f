"""What docs/python.md says of streams in Python is so."""

import doctest
import inspect
import re
from typing import Any

import pytest
from django.dispatch import Signal
from django.test import override_settings

from django_durable_streams import links, signals
from django_durable_streams.api.last_page import LastPage
from django_durable_streams.api.stream_appender import RETRY_SECONDS
from django_durable_streams.api.stream_methods import create_operation
from django_durable_streams.api.tail import Page
from django_durable_streams.api.writer import SyncWriter, Writer
from django_durable_streams.api.writer_options import INTERVAL, MAX_BYTES, WriterOptions
from django_durable_streams.engine import signal_dispatcher
from django_durable_streams.models import Stream, StreamQuerySet
from django_durable_streams.models.async_methods import AsyncStreamMethods
from django_durable_streams.models.methods import StreamMethods
from django_durable_streams.store.operations import Appended
from tests.docs.pages import ROOT, Block, blocks, code, section, table

PAGE = ROOT / "docs" / "python.md"
SESSIONS = blocks(PAGE, "pycon")


@pytest.mark.django_db
@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_sessions_go_as_shown(session: Block) -> None:
    result = doctest.DocTestParser().get_doctest(session.text, {}, str(session), session.page.name, session.line)
    report: list[str] = []
    assert result.examples
    assert doctest.DocTestRunner().run(result, out=report.append).failed == 0, "".join(report)


def test_the_table_of_methods_has_all_of_them() -> None:
    text = section(PAGE, "Methods")
    methods = {**vars(StreamMethods), **vars(AsyncStreamMethods)}
    own = {name for name, method in methods.items() if inspect.isfunction(method)}
    public = {name for name in own if not name.startswith("_")} | {"create", "ensure", "acreate", "aensure"}
    twins = {f"a{name}" for name in public if f"a{name}" in public}
    shown = {code(row[0]).partition("(")[0].rpartition(".")[2] for row in table(text)}
    assert {f"a{name}" for name in shown} == twins
    assert public == shown | twins | {"aappend_from"}
    assert set(re.findall(r"`(\w+)`", text.partition("has a twin")[2].partition(".")[0])) == twins
    assert "`await stream.aappend_from(values)`" in text


def test_the_methods_take_what_the_table_says() -> None:
    for row in table(section(PAGE, "Methods")):
        name, arguments = re.fullmatch(r"(?:\w+\.)*(\w+)\((.*)\)", code(row[0])).groups()  # type: ignore[union-attr]
        shown = set(re.findall(r"(\w+)=", arguments))
        if name == "writer":
            assert shown == set(WriterOptions.__annotations__)
            continue
        owner = create_operation if name in ("create", "ensure") else getattr(Stream, name)
        assert shown <= set(inspect.signature(owner).parameters), name


def test_the_signals_are_those_that_there_are() -> None:
    text = section(PAGE, "Signals")
    assert [code(row[0]) for row in table(text)] == [
        name for name, signal in vars(signals).items() if isinstance(signal, Signal)
    ]
    assert f"If {signal_dispatcher.MAX_QUEUED:,} of them wait" in " ".join(text.split())


def test_the_numbers_of_a_writer_are_those_of_the_code() -> None:
    text = " ".join(section(PAGE, "Writing token by token").split())
    assert f"within {INTERVAL * 1000:.0f} ms, at most {MAX_BYTES // 1024} KiB" in text
    assert f"commits them together, so {1 / INTERVAL:.0f} times a second" in text
    assert RETRY_SECONDS == 60
    assert "up to a minute" in text


def test_the_template_that_is_shown_renders() -> None:
    from django.template import engines

    (block,) = [block for block in blocks(PAGE, "html+django") if "data-stream" in block.text]
    stream = Stream(path="chat/7")
    html = engines["django"].from_string(block.text).render({"stream": stream})
    assert f'data-stream="{links.stream_url(stream)}"' in html
    assert 'data-next="/v1/stream/chat/42"' in html
    with override_settings(DURABLE_STREAMS={"URL_PREFIX": "/streams/"}):
        assert links.stream_url(stream) == "/streams/chat/7"


@pytest.mark.django_db
@override_settings(STATIC_URL="/static/")
def test_the_page_with_the_last_messages_goes_on_at_their_end() -> None:
    from django.template import engines

    (view,) = [block for block in blocks(PAGE, "python") if "read_last" in block.text]
    (template,) = [block for block in blocks(PAGE, "html+django") if "page.next_offset" in block.text]
    scope: dict[str, Any] = {}
    exec(view.text, scope)
    rendered: list[str] = []
    scope["render"] = lambda request, name, context: rendered.append(
        engines["django"].from_string(template.text).render(context)
    )
    stream = Stream.objects.create(path="chat/7", content_type="application/json")
    stream.append_many({"text": f"<{number}>"} for number in range(60))
    scope["show"](None, 7)
    assert re.findall(r"<li>(.*?)</li>", rendered[0]) == [f"&lt;{number}&gt;" for number in range(10, 60)]
    assert f'offset: "{stream.next_offset}"' in rendered[0]
    assert 'follow("/v1/stream/chat/7"' in rendered[0]


def public(kind: type) -> set[str]:
    """The names that an object of a kind has for others."""
    result = {
        name for base in kind.__mro__ if base.__module__.startswith("django_durable_streams") for name in vars(base)
    }
    return {name for name in result if not name.startswith("_") and not name.isupper()}


DJANGO = {
    "DoesNotExist",
    "Meta",
    "MultipleObjectsReturned",
    "get_link_state_display",
    "get_next_by_created_at",
    "get_previous_by_created_at",
    "source_id",
}
"""What Django gives to every model."""

OBJECTS = [
    (Stream, {"check", "instead", "objects", "save_base", "unguarded", *DJANGO}),
    (StreamQuerySet, {"acreate", "aensure", "unguarded"}),
    (Appended, set()),
    (Page, set()),
    (LastPage, set()),
    (Writer, {"begin_end", "check_open", "encode"}),  # for its synchronous form
    (SyncWriter, set()),
]


@pytest.mark.parametrize(("kind", "left_out"), OBJECTS, ids=lambda kind: getattr(kind, "__name__", ""))
def test_the_page_has_every_public_name(kind: type, left_out: set[str]) -> None:
    text = PAGE.read_text()
    names = public(kind) - left_out
    if kind is Stream:
        names |= {field.name for field in Stream._meta.get_fields()}
    shown = {name for code in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"\w+", code)}
    assert names - shown == set()


def test_every_option_of_a_writer_is_explained() -> None:
    row = next(row for row in table(section(PAGE, "Attributes")) if "`WriterOptions`" in row[0])
    assert set(WriterOptions.__annotations__) <= set(re.findall(r"`(\w+)`", row[1]))
