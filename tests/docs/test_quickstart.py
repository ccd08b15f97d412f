"""The quick start, gone through as it is written: a new project, its lines, a real server, another process."""

import os
from pathlib import Path

import pytest

from tests.docs import tour
from tests.docs.pages import ROOT, blocks
from tests.docs.walk import SHOWN_PORT, Walk, environment

PAGE = ROOT / "docs" / "quickstart.md"
SERVER = "python -m uvicorn"


def test_it_goes_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Walk(tmp_path, environment())
    install, begin, serve = blocks(PAGE, "sh")
    # What follows needs what is installed here: Django, and this package with the server.
    assert install.text.splitlines()[-1] == 'pip install "django-durable-streams[uvicorn]"'
    walk.prepare([begin])
    files = blocks(PAGE, "python")
    for block in files:
        assert (walk.folder / block.text.split()[1].rstrip(",")).exists(), (
            f"{block}: startproject has made no such file"
        )
    walk.prepare([*files, *blocks(PAGE, "html+django"), serve])
    assert walk.server.startswith(SERVER)
    walk.run("python manage.py check")

    consoles = "".join(block.text for block in blocks(PAGE, "console")).replace(SHOWN_PORT, str(walk.port))
    steps = list(tour.steps(consoles))
    assert len(steps) == 4
    monkeypatch.chdir(walk.folder)
    for name in set(os.environ) - set(walk.environment):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", walk.environment["PATH"])
    with walk.serving():
        assert walk.fetch("/static/admin/css/base.css") == (200, "text/css")
        assert walk.fetch("/admin/login/") == (200, "text/html; charset=utf-8")
        assert walk.fetch("/notes/") == (200, "text/html; charset=utf-8")
        printed = tour.run([step.command for step in steps], seconds=20)
        for step, lines in zip(steps, printed, strict=True):
            shown = "\n".join(lines)
            assert tour.agree(step.shown, lines), f"$ {step.command}\n{shown}\n{walk.log.read_text()}"
