from dataclasses import fields

import pytest
from django.conf import settings
from django.core.signals import setting_changed
from django.test import override_settings

from django_durable_streams.conf import Config, config, names


def test_settings_have_defaults_that_are_valid_together() -> None:
    with override_settings(DURABLE_STREAMS={}):
        assert config() == Config()
    assert Config().page_bytes <= Config().max_append_bytes
    assert Config().cors_origins == ()
    assert Config().cache_scope == "private"


def test_a_project_need_not_have_the_setting() -> None:
    with override_settings(DURABLE_STREAMS={}):
        del settings.DURABLE_STREAMS
        setting_changed.send(sender=None, setting="DURABLE_STREAMS", value=None, enter=True)
        assert config() == Config()


def test_every_field_has_a_key() -> None:
    assert names() == [known.name.upper() for known in fields(Config)]


@pytest.mark.parametrize(("key", "value"), [("PAGE_BYTES", 7), ("LONG_POLL_TIMEOUT", 0.5), ("CACHE_SCOPE", "public")])
def test_a_key_is_the_field_in_capitals(key: str, value: object) -> None:
    with override_settings(DURABLE_STREAMS={key: value}):
        assert getattr(config(), key.lower()) == value


def test_overriding_settings_is_seen_at_once_and_ends_with_the_override() -> None:
    before = config()
    with override_settings(DURABLE_STREAMS={"PAGE_BYTES": 1}):
        assert config().page_bytes == 1
        with override_settings(DURABLE_STREAMS={"PAGE_BYTES": 2}):
            assert config().page_bytes == 2
        assert config().page_bytes == 1
    assert config() == before


def test_settings_are_read_once_and_not_for_each_request() -> None:
    assert config() is config()


def test_an_unknown_key_is_left_to_the_checks() -> None:
    with override_settings(DURABLE_STREAMS={"PAGE_BYTE": 1}):
        assert config() == Config()


def test_origins_may_be_a_list() -> None:
    with override_settings(DURABLE_STREAMS={"CORS_ORIGINS": ["https://a.example", "https://b.example"]}):
        assert config().cors_origins == ("https://a.example", "https://b.example")
