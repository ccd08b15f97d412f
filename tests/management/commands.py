"""How tests run `manage.py streams`: in this process, and in one of its own."""

import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
from django.core.management import call_command

from tests import preloaded
from tests.servers import EXAMPLE


def streams(*arguments: str, stdin: bytes | None = None) -> str:
    """Run a subcommand and return its output.

    Args:
        arguments: the arguments.
        stdin: the standard input.
    """
    return _output_and_notes(arguments, stdin)[0]


def _output_and_notes(arguments: tuple[str, ...], stdin: bytes | None) -> tuple[str, str]:
    output, notes = io.StringIO(), io.StringIO()
    source = io.TextIOWrapper(io.BytesIO(stdin or b""))
    with patch.object(sys, "stdin", source):
        call_command("streams", *arguments, stdout=output, stderr=notes)
    return output.getvalue(), notes.getvalue()


def rows(*arguments: str, stdin: bytes | None = None) -> list[Any]:
    """Run a subcommand with `--json` and return the objects that it prints."""
    return [msgspec.json.decode(line) for line in streams(*arguments, "--json", stdin=stdin).splitlines()]


def rows_and_notes(*arguments: str) -> tuple[list[Any], str]:
    """Run a subcommand with `--json`. Return the objects that it prints, and its notes to the error output."""
    output, notes = _output_and_notes((*arguments, "--json"), None)
    return [msgspec.json.decode(line) for line in output.splitlines()], notes


class Shell:
    """Runs subcommands as processes.

    Args:
        env: their environment, see `tests.servers.example_environment`.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a subcommand with pipes."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(self.command(*arguments), env=self.env, cwd=EXAMPLE, **{**pipes, **options})

    def run(self, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a subcommand to its end."""
        return preloaded.run_for_bytes(self.command(*arguments), cwd=EXAMPLE, env=self.env, timeout=120, stdin=stdin)

    def output(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run a subcommand that succeeds, and return its output."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    @staticmethod
    def command(*arguments: str) -> list[str]:
        """Return the command line of a subcommand."""
        return [sys.executable, str(Path(EXAMPLE) / "manage.py"), "streams", *arguments]
