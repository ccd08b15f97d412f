"""The rows of old answers are removed, and their chats stay readable."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from django_durable_streams.contrib.ai import pruning, rows
from django_durable_streams.contrib.ai.answers import Chat, Run
from django_durable_streams.contrib.ai.events import Failed, Finish, Message, TextPart
from tests.management.commands import rows as printed
from tests.management.commands import streams
from tests.subscriptions.steps import USING

pytestmark = pytest.mark.django_db(transaction=True)


def ended(path: str, days: float) -> Run:
    """Return a run that ended some days ago."""
    turn = Message("u1", parts=[TextPart("Hi")])
    run, _ = rows.start(rows.StartRequest(path, holder="here", turns=[turn]), USING)
    rows.end(run.pk, run.epoch, Finish(str(run.pk)), USING)
    Run.objects.filter(pk=run.pk).update(ended_at=timezone.now() - timedelta(days=days))
    return run


def test_old_answers_are_removed_and_their_chats_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PORTION", 2)
    for number in range(5):
        ended(f"chats/{number}", days=31)
    recent = ended("chats/5", days=29)
    running, _ = rows.start(rows.StartRequest("chats/0", holder="here"), USING)
    assert printed("prune-answers", "30d", "--dry-run") == [{"removed": 5, "dry_run": True}]
    assert Run.objects.count() == 7
    assert printed("prune-answers", "30d", "--no-input") == [{"removed": 5, "dry_run": False}]
    assert set(Run.objects.values_list("pk", flat=True)) == {recent.pk, running.pk}
    chat: Any = Chat.at("chats/0")
    assert [(message.role, message.text, message.status) for message in chat.messages()] == [
        ("user", "Hi", "done"),
        ("assistant", "", "done"),
        ("assistant", "", "streaming"),
    ]
    assert chat.active_run() == running
    assert rows.end(running.pk, running.epoch, Failed(str(running.pk)), USING)
    assert "0 answers" in streams("prune-answers", "30d", "--no-input")


def test_a_duration_without_end_is_refused() -> None:
    with pytest.raises(CommandError, match="too long"):
        streams("prune-answers", "9999999w", "--no-input")


def test_without_the_app_there_are_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.apps.apps.is_installed", lambda name: False)
    with pytest.raises(CommandError, match="INSTALLED_APPS"):
        streams("prune-answers", "30d", "--no-input")
