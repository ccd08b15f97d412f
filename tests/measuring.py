"""A plugin of pytest that measures which branches of the package the tests run in this process.

    PYTEST_PLUGINS=tests.measuring python -m pytest tests   # the variable reaches the processes of pytest-xdist too
    python -m tests.measuring          # turns what all processes have left into the data of coverage.py
    coverage report

`python -m tests.measuring --erase` removes what earlier runs have left. The modules of the package get marks when they
are imported (`tests.marking`), so the plugin has to be loaded first.
"""

import ast
import functools
import hashlib
import importlib.util
import json
import marshal
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests import marking
from tests.marking import RAN, Mark, marked

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "django_durable_streams"
FOLDER = ROOT / "build" / "coverage"
"""Where each process leaves a file at its end."""
CODE = ROOT / "build" / "marked"
"""Where the first process that imports a module leaves its code with marks for the others."""

Arc = tuple[int, int]
BEFORE = -1
"""The line before a line that ran: coverage.py takes lines from pairs of lines."""

_measured: dict[str, tuple[list[Mark], list[bool]]] = {}
"""By path: the marks of a module, and which of them ran."""


class MeasuredLoader(SourceFileLoader):
    """Loads a module with marks. Its compiled code has a folder of its own: servers need it without marks."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        marks, code = _marked_code(path, self.get_data(path))
        _measured.setdefault(path, (marks, [False] * len(marks)))
        return code

    def exec_module(self, module: ModuleType) -> None:
        code = self.get_code(module.__name__)
        setattr(module, RAN, _measured[self.path][1])
        exec(code, module.__dict__)


def _marked_code(path: str, source: bytes) -> tuple[list[Mark], CodeType]:
    """Return the marks of a module and its code, from the file that an earlier process has left, if there is one."""
    key = hashlib.blake2b(b"\0".join([importlib.util.MAGIC_NUMBER, _marking(), path.encode(), source])).digest()
    kept = CODE / f"{hashlib.blake2b(path.encode(), digest_size=16).hexdigest()}.{sys.implementation.cache_tag}"
    with suppress(OSError, ValueError, EOFError, TypeError):  # there is none, or not of this source
        kept_key, marks, code = marshal.loads(kept.read_bytes())
        if kept_key == key:
            return [Mark(*mark) for mark in marks], code
    tree = ast.parse(source)
    marks = marked(tree)
    code = compile(tree, path, "exec", dont_inherit=True)
    with suppress(OSError):
        CODE.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_name(f"{kept.name}.{os.getpid()}")
        unfinished.write_bytes(marshal.dumps((key, [tuple(mark) for mark in marks], code)))
        unfinished.replace(kept)
    return marks, code


@functools.cache
def _marking() -> bytes:
    return Path(marking.__file__).read_bytes()


class MeasuringFinder(MetaPathFinder):
    """Finds the modules that are measured. Migrations are history."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not is_measured(fullname.split(".")):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = MeasuredLoader(spec.loader.name, spec.loader.path)
        return spec


def is_measured(names: Sequence[str]) -> bool:
    """Whether a module is measured. names: of the packages that it is in, and its own."""
    return names[0] == PACKAGE and "migrations" not in names


def pytest_addhooks() -> None:
    """Measure from now on: this is the first hook that pytest calls."""
    assert PACKAGE not in sys.modules, "the package was imported before it could be measured"
    sys.meta_path.insert(0, MeasuringFinder())


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Leave what this process has run."""
    ran = {
        str(Path(path).relative_to(ROOT)): [mark for mark, ran in zip(marks, flags, strict=True) if ran]
        for path, (marks, flags) in _measured.items()
    }
    if ran:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"{os.getpid()}.json").write_text(json.dumps(ran))


def arcs_of(possible: Iterable[Arc], first_line: Callable[[int], int], marks: Iterable[Mark]) -> set[Arc]:
    """Return the pairs of lines that ran one after the other.

    possible: the pairs that the code of a file has, by coverage.py. Negative numbers are before its blocks and after.
    first_line: returns the first line of the statement that has a line.
    marks: of the file, those that ran.
    """
    lines: set[int] = set()
    decided: defaultdict[int, set[tuple[bool, int]]] = defaultdict(set)
    for mark in marks:
        if mark.taken is None:
            lines.add(first_line(mark.line))
        else:
            decided[first_line(mark.line)].add((mark.taken, first_line(mark.target)))
    result = {(BEFORE, line) for line in lines}
    for start, end in possible:
        if start in decided:
            ran = any((end == target) == taken for taken, target in decided[start])
        else:
            ran = (start < 0 or start in lines) and (end < 0 or end in lines)
        if ran:
            result.add((start, end))
    return result


def main(arguments: list[str]) -> int:
    """Write the data of coverage.py, or remove what earlier runs have left."""
    if arguments == ["--erase"]:
        shutil.rmtree(FOLDER, ignore_errors=True)
        return 0
    write_data()
    return 0


def write_data() -> None:
    """Write the data of coverage.py."""
    from coverage import CoverageData
    from coverage.parser import PythonParser

    ran: defaultdict[str, set[Mark]] = defaultdict(set)
    for file in FOLDER.glob("*.json"):
        for path, marks in json.loads(file.read_text()).items():
            if (ROOT / path).exists() and (ROOT / path).stat().st_mtime < file.stat().st_mtime:
                ran[path].update(Mark(*mark) for mark in marks)
    data = CoverageData(str(ROOT / ".coverage"))
    data.erase()
    files = (ROOT / PACKAGE).rglob("*.py")
    for path, marks_of_file in ran.items():
        parser = PythonParser(filename=str(ROOT / path))
        parser.parse_source()
        data.add_arcs({path: arcs_of(parser.arcs(), parser.first_line, marks_of_file)})
    data.touch_files([str(path.relative_to(ROOT)) for path in files if "migrations" not in path.parts])
    data.write()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
