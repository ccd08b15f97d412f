"""The beginning of a process of `streams_worker --processes`. A new Python imports it before Django is set up."""

from __future__ import annotations

from typing import Any


def run(options: dict[str, Any]) -> None:
    """Run consumers until SIGTERM or Ctrl-C, or until the parent process ends.

    Args:
        options: the options of the command.
    """
    import django

    django.setup()
    from django.core.management import load_command_class

    command: Any = load_command_class("django_durable_streams", "streams_worker")
    command.run_child(options)
