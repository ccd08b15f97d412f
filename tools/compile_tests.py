"""Compile the package and its tests once: `python tools/compile_tests.py`.

In a new checkout, each process that runs tests would compile all of them, because all processes begin at once and go
through the files in the same order. pytest puts explanations into the assertions of tests, which takes longer than to
run most of them. The package is compiled twice: for servers, and with marks for `tests.measuring`.
"""

import compileall
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from _pytest.assertion.rewrite import PYC_TAIL, _read_pyc, _rewrite_test, _write_pyc_fp, get_cache_dir

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.measuring import PACKAGE, MeasuredLoader, is_measured  # noqa: E402

FOLDERS = (PACKAGE, "example_project", "tests")


def main() -> int:
    """Compile what is not compiled yet."""
    largest_first = sorted(_files(), key=lambda path: -path.stat().st_size)
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for _ in processes.map(_compile, largest_first, chunksize=8):
            pass
    return 0


def _files() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            if "node_modules" not in path.parts:
                yield path


def _compile(path: Path) -> None:
    """Compile a file. One with errors is left to who imports it."""
    try:
        if path.name == "conftest.py" or path.name.startswith("test_"):
            _compile_test(path)
            return
        compileall.compile_file(path, quiet=2)
        names = path.relative_to(ROOT).with_suffix("").parts
        if is_measured(names):
            MeasuredLoader(".".join(names), str(path)).get_code(".".join(names))
    except SyntaxError:
        pass


def _compile_test(path: Path) -> None:
    """Do what the import hook of pytest does."""
    folder = get_cache_dir(path)
    compiled = folder / (path.stem + PYC_TAIL)
    if _read_pyc(path, compiled) is None:
        source_hash, code = _rewrite_test(path, None)  # type: ignore[arg-type]
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = compiled.with_name(f"{compiled.name}.{os.getpid()}")
        with unfinished.open("wb") as file:
            _write_pyc_fp(file, source_hash, code)
        unfinished.replace(compiled)


if __name__ == "__main__":
    sys.exit(main())
