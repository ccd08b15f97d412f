from datetime import timedelta
from typing import Any

import pytest

from django_durable_streams.protocol.errors import DurableStreamsError, InvalidParameter
from django_durable_streams.protocol.retention import RetentionRules, retention_patterns, rules


def test_rules_are_numbers_from_one_on() -> None:
    assert rules(age=60, bytes=1, messages=5) == RetentionRules(60, 1, 5)
    assert rules(age=timedelta(hours=1)) == RetentionRules(age=3600)
    assert not rules()
    assert rules(bytes=1)


@pytest.mark.parametrize("name", RetentionRules._fields)
@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True, 10**17, [], timedelta(seconds=0.5), timedelta(0)])
def test_what_is_no_such_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter, match=name):
        rules(**{name: value})


def test_the_first_pattern_that_matches_counts() -> None:
    patterns = retention_patterns({"chat/*": {"age": 5}, "chat/**": {"bytes": 7}, "logs/**": {}})
    assert patterns.find("chat/a") == RetentionRules(age=5)
    assert patterns.find("chat/a/b") == RetentionRules(bytes=7)
    assert patterns.find("logs/a") == RetentionRules()
    assert patterns.find("else") is None


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"chat/*x": {"age": 5}}, "chat/\\*x"),
        ({"/chat": {"age": 5}}, "path"),
        ({"": {"age": 5}}, "pattern"),
        ({5: {"age": 5}}, "5"),
        ({"chat/*": {"ages": 5}}, "ages"),
        ({"chat/*": {"age": 0}}, "'chat/\\*'.*age=0"),
        ({"chat/*": {"bytes": "1 MB"}}, "'chat/\\*'.*bytes='1 MB'"),
        ({"chat/*": 5}, "'chat/\\*'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(setting: Any, name: str) -> None:
    with pytest.raises(DurableStreamsError, match=name):
        retention_patterns(setting)
