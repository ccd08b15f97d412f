"""The quick start, gone through as it is written: a new project, its lines, a real server, another process."""

import contextlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import tour
from tests.docs.pages import ROOT, Block, blocks
from tests.servers import HOST, free_port

PAGE = ROOT / "docs" / "quickstart.md"
SHOWN_PORT = "8000"
SERVER = "python -m uvicorn"
START_SECONDS = 20.0
COMMAND_SECONDS = 60.0


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a person who has the package installed, and nothing else of ours."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "PYTHONPATH")
    return {**{name: value for name, value in os.environ.items() if name not in ours}, "PATH": path}


def write(block: Block, project: Path) -> None:
    """Write a file as its first line says."""
    first, _, rest = block.text.partition("\n")
    name, _, where = first.removeprefix("# ").partition(", ")
    file = project / name
    assert file.exists(), f"{block}: startproject and startapp have made no {name}"
    if where:
        assert where == "at the end"
        rest = f"{file.read_text()}\n{rest}"
    file.write_text(rest)


@contextlib.contextmanager
def served(command: str, port: int, project: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run the server on another port than the page says."""
    arguments = command.replace(SHOWN_PORT, str(port)).split()[1:]
    with (project / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(port):
            assert process.poll() is None, (project / "log").read_text()
            assert time.monotonic() < deadline, (project / "log").read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("HEAD", "/v1/stream/notes")
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def fetch(port: int, path: str) -> tuple[int, str]:
    """Return the status and content type of a page."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers["Content-Type"]
    finally:
        connection.close()


def test_it_goes_as_it_is_written(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "mysite"
    install, begin, serve = (block.text.splitlines() for block in blocks(PAGE, "sh"))
    # What follows needs what is installed here: Django, and this package with the server.
    assert install[-1] == 'pip install "django-durable-streams[uvicorn]"'
    run(" && ".join(begin), tmp_path, environment)
    for block in blocks(PAGE, "python"):
        write(block, project)
    *prepare, server = serve
    assert server.startswith(SERVER)
    run(" && ".join(prepare), project, environment)
    run("python manage.py check", project, environment)

    port = free_port()
    consoles = "".join(block.text for block in blocks(PAGE, "console")).replace(SHOWN_PORT, str(port))
    steps = list(tour.steps(consoles))
    assert len(steps) == 4
    monkeypatch.chdir(project)
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", environment["PATH"])
    with served(server, port, project, environment):
        assert fetch(port, "/static/admin/css/base.css") == (200, "text/css")
        assert fetch(port, "/admin/login/") == (200, "text/html; charset=utf-8")
        printed = tour.run([step.command for step in steps], seconds=20)
        for step, lines in zip(steps, printed, strict=True):
            shown = "\n".join(lines)
            assert tour.agree(step.shown, lines), f"$ {step.command}\n{shown}\n{(project / 'log').read_text()}"


def run(command: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
