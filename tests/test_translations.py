"""The catalogs of translations: complete, compiled, and with the placeholders of the texts in the code."""

import re
import shutil
from collections import Counter

import polib
import pytest
from django.utils.translation import gettext, override

from tools import messages

PLACEHOLDER = re.compile(r"%%?(?:\(\w+\))?[sd]|\{\w*\}")

languages = pytest.mark.parametrize("language", messages.LANGUAGES)


def forms(entry: polib.POEntry) -> list[str]:
    return list(entry.msgstr_plural.values()) if entry.msgid_plural else [entry.msgstr]


@pytest.mark.skipif(shutil.which("xgettext") is None, reason="needs gettext")
def test_the_catalogs_have_all_texts_of_the_code_and_no_others() -> None:
    texts = [(entry.msgid, entry.msgid_plural) for entry in messages.extract()]
    assert len(texts) > 400
    for language in messages.LANGUAGES:
        catalog = polib.pofile(messages.catalog_path(language))
        assert [(entry.msgid, entry.msgid_plural) for entry in catalog] == texts, f"{language}: run `make messages`"


@languages
def test_nothing_is_missing_or_fuzzy(language: str) -> None:
    catalog = polib.pofile(messages.catalog_path(language))
    assert [entry.msgid for entry in catalog if entry.fuzzy or entry.obsolete or not all(forms(entry))] == []


@languages
def test_placeholders_agree(language: str) -> None:
    """A form of the plural may leave out the number, as the English singular does."""
    for entry in polib.pofile(messages.catalog_path(language)):
        wanted = Counter(PLACEHOLDER.findall(entry.msgid_plural or entry.msgid))
        singular = Counter(PLACEHOLDER.findall(entry.msgid))
        for number, form in enumerate(forms(entry)):
            placeholders = Counter(PLACEHOLDER.findall(form))
            assert placeholders == wanted or (number == 0 and placeholders == singular), (entry.msgid, form)
            assert form[:1].isspace() == entry.msgid[:1].isspace(), entry.msgid
            assert "\n" not in form


@languages
def test_the_compiled_catalog_is_the_one_beside_it(language: str) -> None:
    path = messages.catalog_path(language)
    compiled = {entry.msgid: forms(entry) for entry in polib.mofile(path.with_suffix(".mo"))}
    assert compiled == {entry.msgid: forms(entry) for entry in polib.pofile(path)}


@pytest.mark.parametrize(
    ("code", "translation"),
    [
        ("de", "Lebensdauer und Aufbewahrung"),
        ("es", "Tiempo de vida y retención"),
        ("fr", "Durée de vie et rétention"),  # codespell:ignore vie
        ("ja", "有効期間と保持"),
        ("zh-hans", "生存期与保留"),
        ("en", "Lifetime and retention"),
    ],
)
def test_django_finds_the_translations(code: str, translation: str) -> None:
    with override(code):
        assert gettext("Lifetime and retention") == translation
