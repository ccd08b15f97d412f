"""What the page about the admin says is so."""

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.template.defaultfilters import filesizeformat

from django_durable_streams.admin import StreamAdmin, changelist, detail_views, rendering, signed_links
from django_durable_streams.admin.states import State
from django_durable_streams.admin.subscriptions import links_page, states
from django_durable_streams.models import Stream
from tests.docs.pages import ROOT, blocks, code, section, table
from tools import messages

ADMIN = ROOT / "docs" / "admin.md"


def words() -> str:
    return " ".join(ADMIN.read_text().split())


def size(count: int) -> str:
    return filesizeformat(count).replace("\xa0", " ").replace(".0", "").replace("KB", "KiB")


def test_the_numbers_are_those_of_the_code() -> None:
    text = words()
    assert f"at most {changelist.MAX_ROWS_PER_ACTION:,} streams at once" in text
    assert f"Up to {changelist.COUNT_LIMIT:,} streams are counted" in text
    assert f"up to {detail_views.PAGE_MESSAGES}, and about {size(detail_views.PAGE_BYTES)}" in text
    assert f"by more than {size(detail_views.PAGE_BYTES)}, is brought to the end" in text
    assert f"{size(rendering.LIST_LIMIT.text)} of text or {size(rendering.LIST_LIMIT.binary)}, with" in text
    assert f"({size(rendering.PAGE_LIMIT.text)} of text, {size(rendering.PAGE_LIMIT.binary)} in hexadecimal)" in text
    assert detail_views.POLL_SECONDS == 2
    script = (ROOT / "django_durable_streams" / "static" / "durable_streams" / "tail.js").read_text()
    assert re.findall(r"const (\w+) = (\d+);", script) == [
        ("MAX_MESSAGES", "500"),
        ("MAX_RETRY_SECONDS", "30"),
        ("MAX_REQUEST_SECONDS", "45"),
    ]
    assert "keeps the last 500 messages" in text


def test_the_states_are_all_there() -> None:
    assert [row[0] for row in table(section(ADMIN, "The list"))] == [str(label) for label in State.labels]


def test_the_states_of_subscriptions_are_all_there() -> None:
    text = section(ADMIN, "Subscriptions and consumers")
    shown = [row[0] for row in table(text.partition("![")[0])]
    of_links = (states.State.DORMANT, states.State.MISSING)
    assert shown == [str(state.label) for state in states.State if state not in of_links]
    assert all(f'"{state.label}"' in text.replace("\n", " ") for state in of_links)
    assert f"{links_page.LINKS_PER_PAGE} on a page" in text.replace("\n", " ")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("model", "title"), [("stream", "Permissions"), ("subscription", "Subscriptions and consumers")]
)
def test_the_permissions_are_djangos(model: str, title: str) -> None:
    rows = table("| Permission" + section(ADMIN, title).rpartition("| Permission")[2])
    names = Permission.objects.filter(content_type__model=model).values_list("codename", flat=True)
    expected = {f"durable_streams.{name}" for name in names} - {"durable_streams.add_subscription"}
    assert {code(row[0]) for row in rows} == expected


def test_a_subclass_can_be_registered_as_shown() -> None:
    (block,) = blocks(ADMIN, "python")
    try:
        exec(block.text, {"__name__": "ours"})
        assert type(admin.site.get_model_admin(Stream)).__name__ == "OurStreamAdmin"
    finally:
        admin.site.unregister(Stream)
        admin.site.register(Stream, StreamAdmin)


def test_the_lifetimes_of_signed_links_are_those_of_the_form() -> None:
    *first, last = (str(name) for name in signed_links.LIFETIMES.values())
    assert f"valid for {', '.join(first)} or {last}." in words()


def test_the_languages_are_those_of_the_catalogs() -> None:
    names = {"de": "German", "es": "Spanish", "fr": "French", "ja": "Japanese", "zh_Hans": "simplified Chinese"}
    assert set(names) == set(messages.LANGUAGES)
    assert all(name in words() for name in names.values())
