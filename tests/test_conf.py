from dataclasses import fields
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.test import override_settings

from django_durable_streams import conf
from django_durable_streams.conf import Config, config, findings, names
from django_durable_streams.engine import Engine
from django_durable_streams.server.asgi import DurableStreams


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
    assert names() == [existing.name.upper() for existing in fields(Config)]


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


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_settings_that_change_while_a_thread_reads_them_are_not_kept(
    ends: bool, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread would put the old settings into the cache after the signal has cleared it, however late that is."""
    override = override_settings(DURABLE_STREAMS={"LONG_POLL_TIMEOUT": 7.0})
    changes = [override.disable if ends else override.enable]
    real, make = conf.findings, Config.__init__

    def change() -> None:
        if changes:
            changes.pop()()

    def read_slowly(value: object) -> list[conf.Finding]:
        change()
        return real(value)

    def make_slowly(self: Config, **values: Any) -> None:
        make(self, **values)
        change()

    if ends:
        override.enable()
    try:
        setting_changed.send(sender=None, setting="DURABLE_STREAMS", value=None, enter=True)
        monkeypatch.setattr(conf, "findings", real if late else read_slowly)
        monkeypatch.setattr(Config, "__init__", make_slowly)
        config()
        assert not changes
        assert (config().long_poll_timeout == 7.0) is not ends
    finally:
        if not ends:
            override.disable()


def test_settings_are_read_once_and_not_for_each_request() -> None:
    assert config() is config()


WRONG = [
    ({"PAGE_BYTE": 1}, ["PAGE_BYTE", "Did you mean PAGE_BYTES?", "durable_streams.E002"]),
    ({"MAX_APPEND_BYTES": "16MB"}, ["MAX_APPEND_BYTES must be a whole number.", "It is '16MB'.", "E003"]),
    ({"MAX_APPEND_BYTES": 2**40}, ["MAX_APPEND_BYTES must be from 1 to", "E004"]),
    ({"CACHE_BYTES": -(10**400)}, ["CACHE_BYTES must be 0 or more."]),
    ({"PAGE_BYTES": 10**400}, ["PAGE_BYTES must be from 1 to"]),
    ({"LONG_POLL_TIMEOUT": float("nan")}, ["LONG_POLL_TIMEOUT", "It is nan."]),
    ({"LONG_POLL_TIMEOUT": None}, ["LONG_POLL_TIMEOUT must be a number."]),
    ({"POLL_INTERVAL": 0}, ["POLL_INTERVAL must be from 0.001 to 3600."]),
    ({"QUEUE_SIZE": float("inf")}, ["QUEUE_SIZE must be a whole number."]),
    ({"WRITER_THREADS": 10_000}, ["WRITER_THREADS must be from 1 to 64."]),
    ({"UVICORN_FAST_PATH": "no"}, ["UVICORN_FAST_PATH must be True or False."]),
    ({"CACHE_SCOPE": "shared"}, ["CACHE_SCOPE must be 'private' or 'public'."]),
    ({"CORS_ORIGINS": "*"}, ["CORS_ORIGINS must be a list.", "Write ['*']."]),
    ({"WAKEUP": "redis"}, ["WAKEUP must be a dict."]),
    ({"CACHE_SCOPE": 1, "PAGE_BYTES": -1, "ZZZ": 1}, ["CACHE_SCOPE", "PAGE_BYTES", "ZZZ"]),
    ({"WEBHOOK_ALLOWED_HOSTS": "localhost"}, ["WEBHOOK_ALLOWED_HOSTS must be a list.", "Write ['localhost']."]),
    ({"WEBHOOK_TIMEOUT": 0}, ["WEBHOOK_TIMEOUT must be from 0.1 to 240."]),
    ({"WEBHOOK_KEY_SECRET": b"x" * 32}, ["WEBHOOK_KEY_SECRET must be a text. (durable_streams.E003)"]),
    ([("PAGE_BYTES", 1)], ["DURABLE_STREAMS must be a dict."]),
]
MEANINGLESS = [
    ({"RATE_LIMITS": {"append": "100"}}, "RATE_LIMITS"),
    ({"RATE_LIMITS": {"append": "1/s"}, "RATE_LIMIT_CACHE": "nowhere"}, "RATE_LIMIT_CACHE"),
    ({"TRUSTED_PROXIES": ["proxy.internal"]}, "TRUSTED_PROXIES"),
    ({"PATH_PATTERNS": ["a**"]}, "PATH_PATTERNS"),
    ({"RETENTION": {"a**": {"age": 60}}}, "RETENTION"),
    ({"WAKEUP": {"BACKEND": "no.such.Backend"}}, "WAKEUP"),
    ({"WAKEUP": {}}, "WAKEUP"),
    ({"WEBHOOK_ALLOWED_HOSTS": ["*"]}, "WEBHOOK_ALLOWED_HOSTS"),
    ({"WEBHOOK_KEY_SECRET": "short"}, "WEBHOOK_KEY_SECRET"),
    ({"PERMISSION_CLASSES": "no.such.Permission"}, "no.such"),
]


@pytest.mark.parametrize(("received", "words"), WRONG, ids=str)
def test_settings_that_cannot_be_used_are_refused_with_what_to_do(received: object, words: list[str]) -> None:
    with override_settings(DURABLE_STREAMS=received), pytest.raises(ImproperlyConfigured) as raised:
        config()
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(
    ("received", "words"), [*WRONG, *((received, [word]) for received, word in MEANINGLESS)], ids=str
)
def test_the_asgi_application_is_not_made_with_them(received: object, words: list[str]) -> None:
    with override_settings(DURABLE_STREAMS=received), pytest.raises(ImproperlyConfigured) as raised:
        DurableStreams()
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(("received", "words"), WRONG, ids=str)
def test_an_engine_is_not_made_with_them(received: object, words: list[str]) -> None:
    with override_settings(DURABLE_STREAMS=received), pytest.raises(ImproperlyConfigured) as raised:
        Engine("default")
    assert words[0] in str(raised.value)


@pytest.mark.parametrize(("received", "words"), WRONG, ids=str)
def test_the_checks_say_the_same(received: object, words: list[str]) -> None:
    with override_settings(DURABLE_STREAMS=received):
        result = [message for message in run_checks() if (message.id or "").startswith("durable_streams.")]
        with pytest.raises(ImproperlyConfigured) as raised:
            config()
    assert {message.id for message in result} <= {f"durable_streams.E00{number}" for number in (1, 2, 3, 4)}
    assert result
    assert all(message.msg in str(raised.value) and message.id in str(raised.value) for message in result)


def test_no_message_and_no_text_of_the_settings_shows_a_secret() -> None:
    with override_settings(DURABLE_STREAMS={"WEBHOOK_KEY_SECRET": "a-secret-text-of-32-characters-xx"}):
        assert "a-secret" not in repr(config())
    for value in (b"a-secret", ["a-secret"], {"a": "a-secret"}):
        assert all("a-secret" not in str(finding) for finding in findings({"WEBHOOK_KEY_SECRET": value}))


@pytest.mark.parametrize("key", ["CACHE_BYTES", "MAX_LIVE_READERS", "QUEUE_BYTES"])
def test_what_has_no_largest_value_may_have_any(key: str) -> None:
    assert findings({key: 10**400}) == []


def test_origins_may_be_a_list() -> None:
    with override_settings(DURABLE_STREAMS={"CORS_ORIGINS": ["https://a.example", "https://b.example"]}):
        assert config().cors_origins == ("https://a.example", "https://b.example")
