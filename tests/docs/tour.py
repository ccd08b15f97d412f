"""The console of a page as a script: its commands, what they should print, and whether they did."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Printed after each command, so that the output of one shell can be told apart.
MARK = "=== end of a command ==="

LEFT_OUT = "..."
ANYTHING = "…"


class Step(NamedTuple):
    """A command, and the lines that the page shows below it."""

    command: str
    shown: list[str]


def steps(text: str) -> Iterator[Step]:
    """Read a console: lines after `$ ` are commands, which go on after a backslash; the others are output."""
    command: list[str] = []
    shown: list[str] = []
    for line in text.splitlines():
        if command and command[-1].endswith("\\"):
            command.append(line)
        elif line.startswith("$ "):
            if command:
                yield Step("\n".join(command), shown)
            command, shown = [line.removeprefix("$ ")], []
        else:
            shown.append(line)
    if command:
        yield Step("\n".join(command), shown)


def run(commands: Sequence[str], seconds: float) -> list[list[str]]:
    """Run commands in one bash and return the lines that each has printed."""
    script = "".join(f"{command}\nprintf '\\n%s\\n' '{MARK}'\n" for command in commands)
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=seconds, check=False)
    outputs = done.stdout.decode().replace("\r\n", "\n").split(f"\n{MARK}\n")
    assert outputs.pop() == "", done.stderr.decode()
    assert len(outputs) == len(commands), done.stderr.decode()
    return [output.splitlines() for output in outputs]


def agree(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether a page shows what was printed, but for what it says it leaves out.

    A line of `...` stands for any lines, also none; `…` inside a line for any text, but some.
    """
    pattern = "".join("(?:.*\n)*?" if line == LEFT_OUT else f"{_line(line)}\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


def _line(shown: str) -> str:
    return ".+".join(re.escape(part) for part in shown.split(ANYTHING))
