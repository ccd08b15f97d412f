"""`manage.py streams`: lists, writes, reads, moves and deletes streams, and operates consumers.

The subcommands are in `management.streams`. This module parses their arguments, and turns their errors into one line.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import SUPPRESS, Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from itertools import islice
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error, connections
from django.db.models import ProtectedError, RestrictedError

from ...protocol.errors import DurableStreamsError
from ...runtime.configuration_errors import find_problem
from ...store.archive.records import ArchiveError
from ...subscriptions.consumers.declarations import ConsumerError
from ..errors_only import ErrorsOnlyCommand
from ..streams.base import Console
from ..streams.table import SUBCOMMANDS

_BY_NAME = {subcommand.name: subcommand for subcommand in SUBCOMMANDS}


class SubcommandParser(CommandParser):
    """Parses options and other arguments in any order. Argparse ends a list of paths or messages at an option."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `ArgumentParser`. It gets the options first, and all others after them."""
        return super().parse_known_args(None if args is None else self._sorted(args), namespace)

    def _sorted(self, args: Sequence[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        options: list[str] = []
        others: list[str] = []
        rest = iter(args[:end])
        for text in rest:
            option = self._option_of(text)
            if option is None:
                others.append(text)
                continue
            takes_value = _takes_value(option, text)
            whole = [text, *(islice(rest, 1) if takes_value else ())]
            # Without its value, it would take the first of the others, which come next.
            is_cut_off = takes_value and len(whole) == 1
            (others if is_cut_off else options).extend(whole)
        return [*options, *others, *args[end:]]

    def _option_of(self, text: str) -> Action | None:
        """Return the option that an argument names, or begins to name. None: it is another argument, or wrong.

        An argument such as `--name=Ada Lovelace` may be a message, if there is no such option.
        """
        if not text.startswith("-"):
            return None
        name = text.partition("=")[0]
        flags = [(flag, action) for action in self._actions for flag in action.option_strings]
        exact = [action for flag, action in flags if flag == name]
        if text.startswith("--"):
            begun = [action for flag, action in flags if flag.startswith(name)]
        else:
            begun = [action for flag, action in flags if text.startswith(flag)]  # with its value: -v1
        return next(iter([*exact, *begun]), None)


def _takes_value(option: Action, text: str) -> bool:
    """Return whether the argument after `text`, which names an option, is the value of that option."""
    is_long = text.startswith("--") and "=" not in text
    return option.nargs is None and (is_long or text in option.option_strings)


class Command(ErrorsOnlyCommand):
    """Work with streams from a shell."""

    help = (
        "Works with streams from a shell. Each subcommand has its own --help, with examples. A path is that of the "
        "stream below the root of the streams. A pattern has * for one segment and ** for any number of segments."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(
            dest="action", required=True, metavar="subcommand", parser_class=SubcommandParser
        )
        for subcommand in SUBCOMMANDS:
            examples = f"examples:\n{_indented(subcommand.examples)}" if subcommand.examples else None
            one = actions.add_parser(
                subcommand.name,
                help=subcommand.help,
                description=f"{subcommand.help[0].upper()}{subcommand.help[1:]}.",
                epilog=examples,
                formatter_class=RawDescriptionHelpFormatter,
            )
            subcommand.add_arguments(one)
            if subcommand.has_json:
                one.add_argument("--json", action="store_true", help="print JSON, one object a line, for scripts")
            _add_common_options(one)
            if subcommand.has_database:
                one.add_argument(
                    "--database",
                    choices=tuple(connections),
                    help="alias of the database (default: the database of the streams)",
                )

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console(self.stdout, self.stderr, options)
        try:
            _BY_NAME[options["action"]].run(console, options)
            console.flush()
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=128 + signal.SIGINT) from None
        except BrokenPipeError:
            _leave_pipe()
        except DurableStreamsError as error:
            raise CommandError(error.detail) from error
        except (ProtectedError, RestrictedError) as error:
            raise CommandError(f"Rows of the project forbid it: {error.args[0]} Nothing was changed.") from error
        except Error as error:
            problem = find_problem(error)
            remedy = f"{problem.message} {problem.remedy} " if problem is not None else ""
            raise CommandError(f"{remedy}The database says: {_one_line(error)}") from error
        except (LookupError, ConsumerError, ArchiveError, OSError) as error:
            raise CommandError(_one_line(error)) from error


def _add_common_options(parser: ArgumentParser) -> None:
    """Accept the options of all management commands after the subcommand, too. Those before it are the defaults."""
    parser.add_argument(
        "-v", "--verbosity", type=int, choices=range(4), default=SUPPRESS, help="0: no notes, 1: the default, 2: more"
    )
    for flag in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(flag, action="store_true", default=SUPPRESS, help=SUPPRESS)
    for option in ("--settings", "--pythonpath"):  # Django has read them already
        parser.add_argument(option, default=SUPPRESS, help=SUPPRESS)


def _leave_pipe() -> None:
    """End as programs do whose output nobody reads any more. Python would flush its buffer, and fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _one_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.strip().splitlines())
