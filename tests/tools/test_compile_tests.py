"""What is compiled before the tests is what the import hook of pytest looks for."""

import importlib.util
import marshal
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import PYC_TAIL, _read_pyc, get_cache_dir

from tests.measuring import PACKAGE
from tools import compile_tests


def test_a_compiled_test_explains_its_assertions(tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text("def test_it():\n    value = 1\n    assert value == 2\n")
    compile_tests._compile(path)

    code = _read_pyc(path, get_cache_dir(path) / f"test_it{PYC_TAIL}")
    assert code is not None
    names: dict[str, object] = {"__file__": str(path), "__name__": "test_it"}
    exec(code, names)
    with pytest.raises(AssertionError, match="assert 1 == 2"):
        names["test_it"]()  # type: ignore[operator]


def test_a_file_with_an_error_is_left_to_who_imports_it(tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text("def:\n")
    compile_tests._compile(path)
    assert not list(tmp_path.rglob("*.pyc"))


def test_the_package_is_compiled_with_marks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.measuring.CODE", tmp_path)
    path = compile_tests.ROOT / PACKAGE / "conf.py"
    compile_tests._compile(path)

    compiled = Path(importlib.util.cache_from_source(str(path)))
    assert marshal.loads(compiled.read_bytes()[16:]).co_filename == str(path)
    assert len(list(tmp_path.iterdir())) == 1
