"""The check of names and sizes reports exactly what the project has given up."""

from pathlib import Path

import pytest

from tools import check_names

PACKAGE = check_names.PACKAGE


def problems(root: Path, path: str, text: str) -> list[str]:
    """Check a tree of one file, and return its problems without the path."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return [str(problem).removeprefix(f"{path}:") for problem in check_names.check(root)]


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ("class KnownStreams:\n    pass\n", 1, "KnownStreams"),
        ("x = 1\n\n\ndef f(found):\n    pass\n", 4, "found"),
        ("write_lanes = 1\n", 1, "write_lanes"),
        ("class WriteLane:\n    pass\n", 1, "WriteLane"),
        ("from .engine.lane import x\n", 1, "lane"),
        ("from .engine import lane\n", 1, "lane"),
        ("import tests.doors.probed\n", 1, "doors"),
        ("f(recall=1)\n", 1, "recall"),
        ("try:\n    pass\nexcept ValueError as known:\n    pass\n", 3, "known"),
        ("self._gather()\n", 1, "_gather"),
        ("PATIENCE = 0.75\n", 1, "PATIENCE"),
        ("match x:\n    case [*those]:\n        pass\n", 2, "those"),
        ("f'{found}'\n", 1, "found"),
    ],
)
def test_a_name_that_is_given_up_is_reported_where_it_stands(tmp_path: Path, text: str, line: int, name: str) -> None:
    (problem,) = problems(tmp_path, f"{PACKAGE}/module.py", text)
    assert problem.startswith(f"{line}: {name}: rather ")


@pytest.mark.parametrize(
    "text",
    [
        "async def f():\n    await asyncio.gather(a, b)\n",
        "import asyncio\n\nasyncio.gather(a, b)\n",
        "from asyncio import gather\n\ngather(a, b)\n",
        "from hypothesis import given\n\n@given(x)\ndef f():\n    pass\n",
        "from django.views import View\n\nclass Page(View):\n    pass\n",
        "x = 'found'\n",
        "planet = misgiven = 1\n",
        "connection.begin()\n",
    ],
)
def test_names_of_other_projects_and_other_words_are_good(tmp_path: Path, text: str) -> None:
    expected = ["2: gather: rather flush"] if text.startswith("async def") else []
    assert problems(tmp_path, f"{PACKAGE}/store/module.py", text) == expected


@pytest.mark.parametrize(
    ("text", "old"),
    [
        ('DURABLE_STREAMS = {"WRITE_LANES": 2}\n', '"WRITE_LANES": rather WRITER_THREADS'),
        ("override(FALLBACK_INTERVAL=1)\n", "FALLBACK_INTERVAL: rather POLL_INTERVAL"),
        ("config().remember_seconds\n", "remember_seconds: rather auth_cache_seconds"),
        (f'x = "{PACKAGE}.store.calls"\n', f"{PACKAGE}.store.calls: rather transactions"),
    ],
)
def test_old_settings_and_modules_are_reported_in_strings_too(tmp_path: Path, text: str, old: str) -> None:
    assert problems(tmp_path, "tests/module.py", text) == [f"1: {old}"]


def test_comments_and_docstrings_do_not_have_the_words_that_are_nowhere(tmp_path: Path) -> None:
    text = '"""A module.\n\nIts lanes wait.\n"""\n\nx = 1  # behind the door\n'
    assert problems(tmp_path, "benchmarks/module.py", text) == [
        '3: the word "lanes": rather batch worker, committer, snapshot reader',
        '6: the word "door": rather entry point',
    ]


def test_a_part_of_the_tree_has_names_of_its_own(tmp_path: Path) -> None:
    assert problems(tmp_path, f"{PACKAGE}/access/grants.py", "again = 1\n") == ["1: again: rather refresh"]
    assert problems(tmp_path, f"{PACKAGE}/access/grants.py", "x = 1\n") == []
    text = "def answer_head():\n    pass\n"
    assert problems(tmp_path, f"{PACKAGE}/server/x.py", text) == ["1: answer_head: rather respond_head"]
    assert problems(tmp_path, f"{PACKAGE}/server/x.py", "x = 1\n") == []
    assert problems(tmp_path, "tests/x.py", text) == []


def test_the_protocol_has_the_names_of_the_specification(tmp_path: Path) -> None:
    assert problems(tmp_path, f"{PACKAGE}/protocol/x.py", "found = 1\n") == []


def test_a_page_is_checked_in_its_sentences_its_quoted_names_and_its_python(tmp_path: Path) -> None:
    text = "# A page\n\nThe lane, `WRITE_LANES` and `x.recall()`.\n\n```python\nx = 1\nfound = 2\n```\n"
    text += "\n```sh\nfound\n```\n"
    assert problems(tmp_path, "docs/page.md", text) == [
        '3: the word "lane": rather batch worker, committer, snapshot reader',
        "3: `WRITE_LANES`, WRITE_LANES: rather WRITER_THREADS",
        "3: `x.recall()`, recall: rather pop_all",
        "7: found: rather what the variable holds",
    ]


def test_the_name_of_a_module_is_a_name(tmp_path: Path) -> None:
    assert problems(tmp_path, f"{PACKAGE}/store/saving.py", "") == ["1: the name saving: rather row_mapping"]
    (tmp_path / f"{PACKAGE}/store/saving.py").unlink()
    assert problems(tmp_path, "tests/test_lane.py", "")[0].startswith("1: the name test_lane: rather ")


def test_sizes_up_to_the_limits_are_good(tmp_path: Path) -> None:
    body = "    pass\n" * 49
    text = f"class A:\n    def f(self, a, b, c, d, e, *, f):\n        pass\n\n\ndef g():\n{body}"
    assert problems(tmp_path, f"{PACKAGE}/module.py", text + "#\n" * (350 - text.count("\n"))) == []


def test_what_is_too_large_is_reported(tmp_path: Path) -> None:
    body = "    pass\n" * 50
    text = f"class A:\n    def f(self, a, b, c, d, e, *, f, **g):\n        pass\n\n\ndef g():\n{body}"
    assert problems(tmp_path, f"{PACKAGE}/module.py", text + "#\n" * (351 - text.count("\n"))) == [
        "1: the module has 351 lines, at most 350 are good",
        "2: f() takes 7 arguments, at most 6 are good",
        "6: g() has 51 lines, at most 50 are good",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "def _f(a, b, c, d, e, f, g):\n    pass\n",
        "class _A:\n    def f(self, a, b, c, d, e, f, g):\n        pass\n",
        "def f():\n    def g(a, b, c, d, e, f, g):\n        pass\n",
    ],
)
def test_what_is_not_public_may_take_more_arguments(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, f"{PACKAGE}/module.py", text) == []


def test_sizes_of_tests_are_free(tmp_path: Path) -> None:
    assert problems(tmp_path, "tests/module.py", "#\n" * 1000) == []


def test_the_command_fails_exactly_where_something_is_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / PACKAGE / "module.py"
    file.parent.mkdir()
    file.write_text("found = 1\n")
    assert check_names.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{PACKAGE}/module.py:1: found: rather what the variable holds\n"
    file.write_text("")
    assert check_names.main([str(tmp_path)]) == 0
