"""Commands print no warnings of the system checks around their own lines, and errors stop them."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.checks.registry import registry
from django.core.management import call_command
from django.core.management.base import CommandError, SystemCheckError

COMMANDS = [("streams", "list"), ("streams", "check-access", "create", "a"), ("streams_rotate_key",)]

pytestmark = pytest.mark.django_db(transaction=True)

Report = Callable[[CheckMessage], None]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Report:
    """Let the system checks report a message."""

    def add(message: CheckMessage) -> None:
        monkeypatch.setattr(registry, "registered_checks", {*registry.registered_checks})
        register(lambda app_configs, **kwargs: [message])

    return add


def notes_of(*arguments: str) -> str:
    """What a command prints to the error output, with its last line if it refuses something."""
    notes = StringIO()
    try:
        call_command(*arguments, skip_checks=False, stdout=StringIO(), stderr=notes)
    except CommandError as error:
        notes.write(str(error))
    return notes.getvalue()


@pytest.mark.parametrize("arguments", COMMANDS)
def test_warnings_are_not_printed(arguments: tuple[str, ...], report: Report) -> None:
    report(Warning("The tea is cold.", id="tea.W001"))
    assert "tea" not in notes_of(*arguments)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_errors_stop_the_command_unless_they_are_silenced(
    arguments: tuple[str, ...], report: Report, settings: Any
) -> None:
    report(Error("The tea is gone.", id="tea.E001"))
    with pytest.raises(SystemCheckError, match="The tea is gone"):
        call_command(*arguments, skip_checks=False)
    call_command("streams", "list", skip_checks=True, stdout=StringIO())
    settings.SILENCED_SYSTEM_CHECKS = ["tea.E001"]
    assert "tea" not in notes_of(*arguments)
