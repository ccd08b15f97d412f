"""docs/settings.md has every setting with its default."""

from django.test import override_settings

from django_durable_streams.conf import SETTING, Config, config, names
from tests.docs.pages import ROOT, code, table

PAGE = ROOT / "docs" / "settings.md"


def settings_table() -> list[list[str]]:
    return table(PAGE.read_text())


def test_the_table_has_every_key_in_order() -> None:
    assert [code(row[0]) for row in settings_table()] == names()


def test_the_table_has_the_defaults() -> None:
    # Its values are Python, so they can be given as settings: that has to make no difference.
    shown = {code(row[0]): eval(code(row[1]), {"__builtins__": {}}) for row in settings_table()}
    with override_settings(**{SETTING: shown}):
        assert config() == Config()


def test_the_table_explains_every_key() -> None:
    assert all(len(row) == 3 and row[2].endswith(".") for row in settings_table())
