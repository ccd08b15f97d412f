"""Write docs/reference/options.md: the arguments of the management commands, from their parsers.

    python tools/write_options.py

A test compares the page with the parsers, so run this after a change of a command.
"""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "options.md"

HEAD = """\
# Options of the commands

Written by `tools/write_options.py` from the commands themselves. [Commands](../commands.md) shows how to use them. The
options of all of Django's commands are left out, such as `--settings` and `--verbosity`.
"""

COMMANDS = ("streams", "streams_worker", "streams_rotate_key")
DJANGO = {
    "--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color", "--force-color",
    "--skip-checks",
}  # fmt: skip


def page() -> str:
    """Return the text of the page. Django has to be set up."""
    return "\n".join([HEAD, *(line for name in COMMANDS for line in _command(name))]).rstrip("\n") + "\n"


def _command(name: str) -> Iterator[str]:
    from django.core.management import load_command_class

    parser = load_command_class("django_durable_streams", name).create_parser("manage.py", name)
    yield f"## {name}"
    yield ""
    yield f"{parser.description}"
    yield ""
    yield from _arguments(parser)
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for title, subparser in action.choices.items():
                yield f"### streams {title}"
                yield ""
                yield f"{subparser.description}"
                yield ""
                yield from _arguments(subparser)


def _arguments(parser: ArgumentParser) -> Iterator[str]:
    shown = [action for action in parser._actions if _is_shown(action)]
    if shown:
        yield "| Argument | Meaning |"
        yield "|---|---|"
        yield from (f"| {_name(action)} | {_meaning(action)} |" for action in shown)
        yield ""


def _is_shown(action: Action) -> bool:
    if isinstance(action, _SubParsersAction) or action.help == SUPPRESS:
        return False
    return not DJANGO.intersection(action.option_strings)


def _name(action: Action) -> str:
    value = action.metavar or action.dest.upper()
    value = value if isinstance(value, str) else " ".join(value)
    if action.choices is not None and action.metavar is None and action.dest != "database":
        value = ",".join(map(str, action.choices))
    if not action.option_strings:
        many = {"*": f"[{value} ...]", "+": f"{value} [{value} ...]", "?": f"[{value}]"}
        return f"`{many.get(str(action.nargs), value)}`"
    takes_value = action.nargs != 0
    return ", ".join(f"`{option} {value}`" if takes_value else f"`{option}`" for option in action.option_strings)


def _meaning(action: Action) -> str:
    text = " ".join((action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%").split())
    return (text[:1].upper() + text[1:]).replace("|", "\\|").replace("*", "\\*").rstrip(".") + "." if text else ""


def main() -> None:
    """Write the page."""
    import django

    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
