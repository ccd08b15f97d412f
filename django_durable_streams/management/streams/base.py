"""The base of the subcommands of `manage.py streams`: their arguments, their output, and the streams that they name.

Knows no subcommand.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar

import msgspec
from django.core.management.base import CommandError, OutputWrapper
from django.db import router

from ...models import Stream
from ...protocol import arguments, content
from ...protocol.errors import StreamGone, StreamNotFound
from ...protocol.globs import ANY, ONE, glob
from ...protocol.listings import MAX_LIMIT, ListingQuery
from ...runtime.printable import printable
from ...store.read import listing
from ...store.read.listing import StreamKey
from .locations import path_argument

Options = dict[str, Any]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}

SHOWN_LINES = 20
"""Lines of `write_some` without `-v 2`."""

_SIZE_UNITS = ("KB", "MB", "GB", "TB", "PB")

TYPES = {"json": content.JSON_CONTENT_TYPE, "text": "text/plain", "bytes": content.DEFAULT_CONTENT_TYPE}
"""Short names of content types."""


class Console:
    """Where a subcommand writes: lines for people or for scripts to the output, and notes to the error output.

    Args:
        out, err: the outputs of the management command.
        options: the parsed options.
    """

    def __init__(self, out: OutputWrapper, err: OutputWrapper, options: Options) -> None:
        self._out, self._err = out, err
        self.is_json: bool = bool(options.get("json"))
        self.verbosity: int = options["verbosity"]
        self.using: str = options.get("database") or router.db_for_write(Stream)

    def write(self, text: str, /, **values: object) -> None:
        """Write a line: the text, or with `--json` the values as an object."""
        if self.is_json:
            self.json(values)
        else:
            self._out.write(printable(text))

    def json(self, values: object) -> None:
        """Write a value as a line of JSON. The escapes are those of JSON, so scripts get the characters themselves."""
        self._out.write(printable(msgspec.json.encode(values).decode()))

    def write_lines(self, lines: Iterable[str]) -> None:
        """Write lines at once, which takes a fraction of the time of `write` for each."""
        if text := "\n".join(lines):
            self._out.write(printable(text))

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are, without a line feed at the end."""
        raw = getattr(self._out, "buffer", None)
        if raw is not None:
            self._out.flush()  # lines that were written before
            raw.write(data)
        else:  # an output for text only, as in a test
            self._out.write(data.decode(errors="replace"), ending="")

    def flush(self) -> None:
        """Hand all output over now."""
        self._out.flush()

    def note(self, text: str) -> None:
        """Write a line for people to the error output, unless with `--verbosity 0`."""
        if self.verbosity:
            self._err.write(printable(text), lambda line: line)

    def confirm(self, question: str, options: Options) -> None:
        """Ask before a change that cannot be taken back, unless with `--no-input`.

        Raises:
            CommandError: the answer is not yes, or nobody can answer.
        """
        if options["interactive"]:
            try:
                answer = input(f"{printable(question)} [y/N] ")
            except EOFError:
                raise CommandError("Nothing was changed. Without a terminal, confirm with --no-input.") from None
            if answer.strip().lower() not in ("y", "yes"):
                raise CommandError("Nothing was changed.")


class Subcommand(ABC):
    """One subcommand. `help` is its line in the list of subcommands, and `examples` the end of its own help."""

    name: ClassVar[str]
    help: ClassVar[str]
    examples: ClassVar[str] = ""
    has_json: ClassVar[bool] = True
    has_database: ClassVar[bool] = True

    def add_arguments(self, parser: ArgumentParser) -> None:  # noqa: B027  some subcommands have none
        """Add the arguments of the subcommand."""

    @abstractmethod
    def run(self, console: Console, options: Options) -> None:
        """Do the work.

        Raises:
            CommandError, DurableStreamsError, django.db.Error, OSError: it is refused, or has failed.
        """


def add_paths(parser: ArgumentParser, nargs: str = "+", purpose: str = "") -> None:
    """Add the argument for paths and patterns."""
    parser.add_argument(
        "paths",
        nargs=nargs,
        metavar="PATH",
        type=path_argument,
        help=purpose or "path of a stream, or a pattern: * is one segment, ** any number of segments",
    )


def add_dry_run(parser: ArgumentParser, prints: str = "print what would be removed") -> None:
    """Add the options of a subcommand that removes something."""
    parser.add_argument("--dry-run", action="store_true", help=f"{prints}, and remove nothing")
    add_no_input(parser)


def add_no_input(parser: ArgumentParser) -> None:
    """Add the option of a subcommand that asks before a change."""
    parser.add_argument("--no-input", action="store_false", dest="interactive", help="do not ask")


def add_hint(parser: ArgumentParser, option: str, hint: str) -> None:
    """Name what to write instead of an option that belongs to another subcommand."""
    parser.add_argument(option, action=_Hint, const=hint, default=SUPPRESS, help=SUPPRESS)


class _Hint(Action):
    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: object, option: str | None = None) -> None:
        parser.error(f"There is no option {option} here. {self.const}")


def add_include_keep_all(parser: ArgumentParser) -> None:
    """Add the option of a subcommand that leaves out streams whose rule of retention says to keep everything."""
    parser.add_argument(
        "--include-keep-all",
        action="store_true",
        help="do not leave out streams whose rule of retention keeps everything",
    )


def note_left_out(console: Console, count: int) -> None:
    """Tell how many streams were left out because their rule says to keep everything."""
    if count:
        were = "was" if count == 1 else "were"
        console.note(
            f"{counted(count, 'stream')} {were} left out, because a rule of retention says to keep everything there. "
            "To include them: --include-keep-all"
        )


def header_argument(text: str) -> tuple[str, str]:
    """Return the name and the value of a header such as `Name: value`."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ArgumentTypeError(f"{text!r} is not a header. Write 'Name: value'.")
    return name.strip(), value.strip()


def duration(text: str) -> int:
    """Return the seconds of a duration such as `90s`, `15m`, `2h`, `7d` or `4w`.

    It needs its unit: who means 30 days and writes 30 would delete what is older than 30 seconds.
    """
    number, unit = text[:-1], text[-1:]
    if not (unit in _UNITS and number.isascii() and number.isdigit() and len(number) < 12):
        raise ArgumentTypeError(
            f"{text!r} is not a duration. Write a whole number with its unit: 90s, 15m (minutes), 2h, 7d or 4w."
        )
    return int(number) * _UNITS[unit]


def moment(text: str) -> datetime:
    """Return the time of a text such as `2026-12-31T12:00:00Z`. Without a time zone it is in UTC."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a time. Write 2026-12-31T12:00:00Z.") from None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def content_type(text: str) -> str:
    """Return the content type of a text, which may be a short name."""
    return TYPES.get(text, text)


def is_pattern(text: str) -> bool:
    """Return whether an argument is a pattern, and not the path of one stream."""
    return not {ONE, ANY}.isdisjoint(text.split("/"))


def wildcard_hint(text: str) -> str:
    """Return a sentence, after a space, about a `*` that is no wildcard in an argument. Otherwise an empty text."""
    if ONE not in text or is_pattern(text):
        return ""
    pattern = "/".join(ONE if ONE in segment else segment for segment in text.split("/"))
    return f" In commands * stands for a whole segment, so {text} has no wildcard. Write '{pattern}'."


def find_stream(path: str, using: str) -> Stream:
    """Return the stream at a path.

    Raises:
        StreamNotFound, StreamGone, InvalidPath: it cannot be read.
    """
    stream = Stream.objects.using(using).alive().filter(path=arguments.path(path)).first()
    if stream is not None:
        return stream
    if Stream.objects.using(using).filter(path=path, deleted_at__isnull=False).exists():
        raise StreamGone(f"The stream {path} was deleted; forks still read its data.")
    raise StreamNotFound(f"There is no stream at {path}.{wildcard_hint(path)}")


def count_streams(texts: Sequence[str], using: str) -> int:
    """Return how many streams paths and patterns name. A path counts without a look at the database."""
    paths = {text for text in texts if not is_pattern(text)}
    return len(paths) + sum(len(rows) for text in texts if is_pattern(text) for rows in _pages(text, using))


def find_streams(texts: Sequence[str], using: str) -> Iterator[list[Stream]]:
    """Yield the streams that paths and patterns name, up to 1000 at a time, each argument after the other.

    Raises:
        StreamNotFound, StreamGone, InvalidPath: a path has no stream that can be read.
        CommandError: a pattern matches no stream.
    """
    for keys in find_keys(texts, using):
        streams = Stream.objects.using(using).in_bulk([key.id for key in keys])
        yield [streams[key.id] for key in keys if key.id in streams]


def find_keys(texts: Sequence[str], using: str) -> Iterator[list[StreamKey]]:
    """Yield the keys of the same streams, with the same errors, in a fraction of the time."""
    paths = [text for text in texts if not is_pattern(text)]
    if paths:
        streams = [find_stream(path, using) for path in dict.fromkeys(paths)]
        yield [StreamKey(stream.path or "", stream.pk) for stream in streams]
    for text in texts:
        if is_pattern(text):
            yield from _matching(text, using)


def _pages(pattern: str, using: str) -> Iterator[list[StreamKey]]:
    return listing.keys(ListingQuery(pattern=glob(pattern), limit=MAX_LIMIT), using)


def _matching(pattern: str, using: str) -> Iterator[list[StreamKey]]:
    is_empty = True
    for keys in _pages(pattern, using):
        is_empty = False
        yield keys
    if is_empty:
        raise CommandError(f"No stream matches {pattern}.")


def each_stream(texts: Sequence[str], using: str) -> Iterator[Stream]:
    """Yield the streams of `find_streams` one by one."""
    for streams in find_streams(texts, using):
        yield from streams


def input_is_terminal() -> bool:
    """Return whether a person types the input."""
    return sys.stdin is not None and sys.stdin.isatty()


def write_some(console: Console, lines: Iterable[tuple[str, dict[str, object]]]) -> None:
    """Write lines with their values: all of them in JSON or with `-v 2`, and otherwise the first ones and a count."""
    hidden = 0
    for number, (text, values) in enumerate(lines):
        if console.is_json or console.verbosity > 1 or number < SHOWN_LINES:
            console.write(text, **values)
        else:
            hidden += 1
    if hidden:
        console.write(f"And {hidden:,} more: -v 2 shows all of them.")


def counted(number: int, noun: str, verb: str = "") -> str:
    """Return a number with its noun, such as `1 message` and `1,200 messages`. With the verb `are`, `1 message is`."""
    forms = {"are": "is", "have": "has"}
    one = number == 1
    return f"{number:,} {noun}{'' if one else 's'}" + (f" {forms[verb] if one else verb}" if verb else "")


def table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the rows as lines with columns of equal width."""
    cells = [tuple(row) for row in rows]
    widths = [{*map(len, column)} for column in zip(*cells, strict=True)]
    template = "  ".join("%s" if len(lengths) == 1 else f"%-{max(lengths)}s" for lengths in widths)
    for row in cells:
        yield (template % row).rstrip()


@lru_cache(maxsize=4096)
def size_text(size: int) -> str:
    """Return a number of bytes as text, such as `1.5 KB`. Django's `filesizeformat` takes longer than a row's query."""
    if size < 1024:
        return f"{size} byte{'' if size == 1 else 's'}"
    power = min((size.bit_length() - 1) // 10, len(_SIZE_UNITS))
    return f"{size / 1024**power:.1f} {_SIZE_UNITS[power - 1]}"
