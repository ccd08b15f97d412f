import math
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.test import override_settings
from django.utils.functional import SimpleLazyObject, lazystr

from django_durable_streams.checks.access import check_permission
from django_durable_streams.checks.settings import check_settings
from django_durable_streams.conf import Config, names
from tests.overriding import override_streams

REDIS = "django_durable_streams.engine.wakeup.redis.RedisWakeup"


def messages(**keys: Any) -> list[CheckMessage]:
    with override_settings(DURABLE_STREAMS=keys):
        return check_settings(None)


@pytest.mark.django_db
def test_the_project_of_these_tests_has_no_complaints() -> None:
    assert [message for message in run_checks() if message.id and message.id.startswith("durable_streams.")] == []


def test_every_known_key_is_fine_with_its_default() -> None:
    assert messages(**{name: getattr(Config(), name.lower()) for name in names()}) == []


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [("PAGE_BYTE", "PAGE_BYTES"), ("page_bytes", "PAGE_BYTES"), ("LONGPOLL_TIMEOUT", "LONG_POLL_TIMEOUT")],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(key: str, suggestion: str) -> None:
    (message,) = messages(**{key: 1})
    assert message.id == "durable_streams.E002"
    assert message.is_serious()
    assert key in message.msg
    assert message.hint == f"Did you mean {suggestion}?"


ODD_VALUES = [
    None, True, -1, 0, 10**400, 1e308, math.inf, math.nan, 0.5, "", "x", "..", "\0", b"x", [], [None], [".."],
    {}, {1: 2}, {"BACKEND": None}, {"BACKEND": ".."}, {"BACKEND": REDIS, "URL": 5}, {"BACKEND": REDIS, 5: 5},
    {"CLASS": None}, {"CLASS": ".."}, {"x": {"age": math.nan}}, {"append": 5}, {"append": "9" * 5000 + "/s"},
    lazystr("x"), [lazystr("x")],
    SimpleLazyObject(lambda: "x"), SimpleLazyObject(lambda: 5), SimpleLazyObject(dict), Path("x"), Decimal("NaN"),
    timedelta(seconds=5), object(), int, {1}, range(3), 1j,
]  # fmt: skip


@pytest.mark.parametrize("key", names())
@pytest.mark.slow
def test_an_odd_value_is_no_error_of_the_checks(key: str) -> None:
    """A value is refused with its key, or can be used. No other exception ends `manage.py check`."""
    for value in ODD_VALUES:
        with override_settings(DURABLE_STREAMS={key: value}):
            problems = [*check_settings(None), *check_permission(None)]
        assert all(problem.is_serious() and key in problem.msg for problem in problems)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("AI_LEASE", SimpleLazyObject(lambda: 5)),
        ("QUEUE_SIZE", SimpleLazyObject(lambda: 5)),
        ("URL_PREFIX", lazystr("/streams/")),
        ("URL_PREFIX", SimpleLazyObject(lambda: "/streams/")),
        ("CONTENT_TYPES", [SimpleLazyObject(lambda: "text/plain")]),
        ("WAKEUP", {"BACKEND": None}),
        ("WAKEUP", {"BACKEND": REDIS, "URL": 5}),
    ],
)
def test_values_that_fail_later_are_refused_at_the_start(key: str, value: Any) -> None:
    """A lazy object has only a part of the operations of the class that it names as its own."""
    (message,) = messages(**{key: value})
    assert message.msg.startswith(key)


def test_a_key_like_no_other_gets_the_list_of_all() -> None:
    (message,) = messages(ZZZ=1)
    assert all(name in (message.hint or "") for name in names())


@pytest.mark.parametrize("value", [None, [], "PAGE_BYTES", 5])
def test_a_setting_that_is_no_dict_is_an_error(value: object) -> None:
    with override_settings(DURABLE_STREAMS=value):
        (message,) = check_settings(None)
    assert message.id == "durable_streams.E001"


@pytest.mark.django_db
def test_the_checks_run_with_all_others() -> None:
    with override_streams(ZZZ=1):
        assert "durable_streams.E002" in {message.id for message in run_checks()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PAGE_BYTES", "1"),
        ("PAGE_BYTES", 1.5),
        ("PAGE_BYTES", True),
        ("PAGE_BYTES", None),
        ("LONG_POLL_TIMEOUT", "30"),
        ("CACHE_SCOPE", 1),
        ("WAKEUP", "redis"),
        ("RATE_LIMITS", ["100/s"]),
        ("CORS_ORIGINS", "https://app.example.com"),
        ("CORS_ORIGINS", [1]),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("TRUSTED_PROXIES", 5),
        ("PATH_PATTERNS", {"chat/*"}),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(key: str, value: object) -> None:
    (message,) = messages(**{key: value})
    assert message.id == "durable_streams.E003"
    assert key in message.msg
    assert repr(value) in (message.hint or "")


def test_a_single_text_is_shown_as_the_list_that_it_should_be() -> None:
    (message,) = messages(CORS_ORIGINS="https://app.example.com")
    assert message.hint == "Write ['https://app.example.com']."


@pytest.mark.parametrize(
    "keys",
    [
        {"PAGE_BYTES": 0},
        {"LONG_POLL_TIMEOUT": -1},
        {"AUTH_CACHE_SECONDS": -0.5},
        {"CACHE_SCOPE": "shared"},
        {"MAX_BODY_MEMORY": 1024},
        {"MAX_APPEND_BYTES": 65 * 1024 * 1024},
        {"RATE_LIMITS": {"append": "100"}},
        {"RATE_LIMITS": {"write": "100/s"}},
        {"RATE_LIMITS": {"append": "100/s"}, "RATE_LIMIT_CACHE": "other"},
        {"TRUSTED_PROXIES": ["10.0.0.0/33"]},
        {"TRUSTED_PROXIES": ["proxy.internal"]},
        {"PATH_PATTERNS": ["a**"]},
        {"PATH_PATTERNS": ["users/{user.pk}"]},
        {"RETENTION": {"chat/*": {"age": 0}}},
        {"REGISTRY_PATH": "__ds/registry"},
        {"REGISTRY_PATH": "a//b"},
        {"REGISTRY_PATH": "/registry"},
        {"RETENTION": {"chat/*": {"days": 1}}},
        {"RETENTION": {"chat/x*": {"age": 60}}},
        {"RETENTION": {"chat/*": 60}},
        {"WAKEUP": {"BACKEND": "no.such.Backend"}},
        {"WAKEUP": {}},
        {"JSON_ENCODER": "no.such.Encoder"},
        {"JSON_ENCODER": "json.dumps"},
        {"JSON_ENCODER": "collections.OrderedDict"},
        {"WAKEUP": {"BACKEND": "django_durable_streams.engine.wakeup.redis.RedisWakeup", "WHAT": 1}},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_an_error(keys: dict[str, Any]) -> None:
    (message,) = messages(**keys)
    assert message.id == "durable_streams.E004"
    assert any(key in message.msg for key in keys)


@pytest.mark.parametrize("keys", [{"GC_THRESHOLD": 0}, {"MAX_LIVE_READERS": 0}, {"AUTH_CACHE_SECONDS": 0}], ids=str)
def test_some_numbers_may_be_zero(keys: dict[str, Any]) -> None:
    assert messages(**keys) == []
