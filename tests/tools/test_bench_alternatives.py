"""Messages to many readers: the program measures this app, and groups of Channels, whose package the tests have."""

import sys
from pathlib import Path

import pytest

from benchmarks import alternatives, targets


@pytest.mark.parametrize("key", ["sqlite", "channels"])
def test_each_reader_gets_each_message(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alternatives, "PYTHON", Path(sys.executable))
    few = ["--only", key, "--readers", "20", "--rate", "20", "--seconds", "1", "--rounds", "1"]
    assert alternatives.main(few) == 0
    *_, row = capsys.readouterr().out.splitlines()
    title, p50, p99, answer, load, _ = (cell.strip() for cell in row.strip("|").split("|"))
    assert title == alternatives.TITLES.get(key, "this app, on SQLite")
    assert 0 < float(p50) <= float(p99)
    assert float(answer) > 0
    assert float(load) > 0


def test_without_the_packages_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(alternatives, "PYTHON", tmp_path / "python")
    with pytest.raises(targets.TargetError, match="make bench-alternatives"):
        alternatives.main(["--only", "eventstream", "--rounds", "1"])
