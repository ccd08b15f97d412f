from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from django_durable_streams.checks.webhooks import check_webhook_hosts, check_webhook_key, check_webhook_packages
from django_durable_streams.conf import config
from django_durable_streams.models import Subscription
from django_durable_streams.server.validation import config_findings
from django_durable_streams.subscriptions import extra
from tests.overriding import override_streams

SECRET = "x" * 32


def ids(messages: list[Any]) -> list[str]:
    return [message.id for message in messages]


def test_keys_without_encryption_are_a_warning_before_they_are_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(check_webhook_key(None)) == ["durable_streams.W024"]
    for is_deployed in (True, False):
        messages = {message.id for message in run_checks(include_deployment_checks=is_deployed)}
        assert ("durable_streams.W024" in messages) is is_deployed
    with override_streams(WEBHOOK_KEY_SECRET=SECRET):
        assert check_webhook_key(None) == []
    monkeypatch.setattr(extra, "is_installed", lambda: False)
    assert check_webhook_key(None) == []


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([], 0),
        (["10.0.0.0/8", "localhost", ".internal"], 0),
        (["0.0.0.0/0"], 1),
        (["::/0", "10.0.0.0/8"], 1),
        (["*"], 0),
    ],
)
def test_an_exemption_of_every_address_is_a_warning(hosts: list[str], expected: int) -> None:
    with override_streams(WEBHOOK_ALLOWED_HOSTS=hosts):
        assert ids(check_webhook_hosts(None)) == ["durable_streams.W025"] * expected


@pytest.mark.django_db
def test_webhook_subscriptions_without_the_packages_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(name: str, kind: str) -> None:
        subscription = Subscription(name=name, kind=kind, lease_ms=1000, config_hash="")
        Subscription.objects.using("default").unguarded().bulk_create([subscription])

    monkeypatch.setattr(extra, "is_installed", lambda: False)
    make("pull", Subscription.Kind.PULL_WAKE)
    assert check_webhook_packages(None, ["default"]) == []
    make("hook", Subscription.Kind.WEBHOOK)
    assert ids(check_webhook_packages(None, ["default"])) == ["durable_streams.W026"]
    assert check_webhook_packages(None) == check_webhook_packages(None, []) == []
    assert "durable_streams.W026" in ids(run_checks(databases=["default"]))
    monkeypatch.setattr(Subscription._meta, "db_table", "not_migrated_yet")
    assert check_webhook_packages(None, ["default"]) == []
    monkeypatch.undo()
    assert check_webhook_packages(None, ["default"]) == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"WEBHOOK_ALLOWED_HOSTS": ["https://hooks.internal"]}, ["WEBHOOK_ALLOWED_HOSTS", "https://hooks.internal"]),
        ({"WEBHOOK_ALLOWED_HOSTS": ["10.0.0.1/8"]}, ["WEBHOOK_ALLOWED_HOSTS", "10.0.0.1/8"]),
        ({"WEBHOOK_KEY_SECRET": "short"}, ["WEBHOOK_KEY_SECRET must have 32 characters or more"]),
    ],
)
def test_settings_that_mean_nothing_are_errors(keys: dict[str, Any], words: list[str]) -> None:
    with override_streams(**keys):
        (finding,) = config_findings(config())
    assert finding.id == "durable_streams.E004"
    assert all(word in finding.message for word in words)
    assert "short" not in finding.message + finding.hint


def test_the_settings_of_webhooks_can_be_used() -> None:
    hosts = ["localhost", ".internal", "10.0.0.0/8", "fd00::1"]
    with override_streams(WEBHOOK_ALLOWED_HOSTS=hosts, WEBHOOK_KEY_SECRET=SECRET), override_settings(DEBUG=False):
        assert config_findings(config()) == []
