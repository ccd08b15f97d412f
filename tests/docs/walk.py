"""A page of instructions, followed literally: its files are written, its commands are run, its server is started.

    walk = Walk(tmp_path / "mysite")
    walk.prepare(blocks)       # files, commands
    with walk.serving(port):   # the last command of the last shell block, on another port
        walk.consoles(blocks)

Knows how pages name files, and nothing of what they build.
"""

import contextlib
import http.client
import inspect
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from uvicorn import Config as UvicornConfig

from tests import preloaded
from tests.docs import tour
from tests.docs.pages import ROOT, Block, blocks
from tests.servers import HOST, free_port

TUTORIAL = ROOT / "docs" / "tutorial"
LANGUAGES = ("sh", "python", "html+django", "css", "console")
SHOWN_PORT = "8000"
_HEALTHCHECK = "--timeout-worker-healthcheck"
START_SECONDS = 30.0
COMMAND_SECONDS = 60.0

# `# path`, `{# path #}` or `/* path */`, and where in the file.
_FILE = re.compile(r"(?:#|\{#|/\*) ([\w./]+)(?:, (at the end))?(?: #\}| \*/)?")
# What a shell acts upon.
_OPERATOR = re.compile(r"[();<>|&]*")
_EXPANDED = re.compile(r"[$`*~]")
# The tests run in an environment that has all packages already.
_INSTALLS = ("python -m venv ", ". env/bin/activate", ". .venv/bin/activate", "pip install ")


def steps(name: str) -> list[Block]:
    """Return the code of a page of the tutorial, in its order."""
    return blocks(TUTORIAL / f"{name}.md", *LANGUAGES)


def environment() -> dict[str, str]:
    """Return the environment of a person who has the package installed, and nothing else of ours."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "PYTHONPATH")
    return {**{name: value for name, value in os.environ.items() if name not in ours}, "PATH": path}


def words_of_python(command: str) -> list[str]:
    """Return the arguments of a command that is nothing but a call of Python. Other commands need a shell.

    Such a call can begin with its imports done: see `tests.preloaded`.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    needs_shell = shlex.split(command) != words or any(_OPERATOR.fullmatch(word) for word in words)
    return [] if needs_shell or words[0] != "python" or _EXPANDED.search(command) else words[1:]


class Walk:
    """One reader of one or several pages, in an empty folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.server = ""
        self.port = free_port()

    def prepare(self, steps: Sequence[Block]) -> None:
        """Write the files and run the commands of a page, in its order, up to the command that serves."""
        for block in steps:
            if block.language == "sh":
                self._run(block)
            elif block.language in ("python", "html+django", "css"):
                self._write(block)

    def _run(self, block: Block) -> None:
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.startswith(_INSTALLS):
                continue
            if line.startswith("cd "):
                self.folder /= line.removeprefix("cd ")
            elif line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                self.environment[name] = value
            elif " runserver " in line or " -m uvicorn " in line:
                self.server = line
            else:
                self.run(line)

    def run(self, command: str) -> str:
        """Run a command of a shell, and return what it has printed."""
        if words := words_of_python(command):
            done = preloaded.run(
                [sys.executable, *words], cwd=self.folder, env=self.environment, timeout=COMMAND_SECONDS
            )
        else:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}\n{printed}"
        return printed

    def _write(self, block: Block) -> None:
        first, _, text = block.text.partition("\n")
        match = _FILE.fullmatch(first)
        assert match is not None, f"{block}: the first line names no file: {first}"
        file = self.folder / match[1]
        # Django's commands make the folders of apps. A page makes only folders of templates and static files.
        assert file.parent.is_dir() or block.language != "python", f"{block}: there is no folder for {match[1]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{file.read_text()}\n{text}" if match[2] else text)

    @property
    def log(self) -> Path:
        """The output of the server."""
        return self.folder.parent / "server.log"

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Run the server of the page on another port than it says, and yield its address."""
        assert self.server, "the page starts no server"
        arguments = self.server.replace(SHOWN_PORT, str(self.port)).split()
        # Its reloader watches files, and starts the server again in a process of its own.
        arguments += ["--noreload"] if "runserver" in arguments else []
        assert arguments[0] == "python"
        if (
            _HEALTHCHECK in arguments
            and "timeout_worker_healthcheck" not in inspect.signature(UvicornConfig).parameters
        ):
            first = arguments.index(_HEALTHCHECK)  # an option of uvicorn 0.37 and later
            del arguments[first : first + 2]
        log = self.log
        with log.open("ab") as output:
            process = preloaded.start(
                [sys.executable, *arguments[1:]], cwd=self.folder, env=self.environment, output=output.fileno()
            )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not self._answers():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield f"http://{HOST}:{self.port}"
        finally:
            process.terminate()
            process.wait(20)

    def _answers(self) -> bool:
        try:
            self.fetch("/v1/stream/nothing")
        except OSError:
            return False
        return True

    def fetch(self, path: str) -> tuple[int, str]:
        """Return the status and the content type of a page of the server."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            return response.status, response.headers["Content-Type"]
        finally:
            connection.close()

    def consoles(self, steps: Sequence[Block]) -> None:
        """Run the consoles of a page, and compare what they print with what the page shows."""
        text = "".join(block.text for block in steps if block.language == "console")
        for step in tour.steps(text.replace(SHOWN_PORT, str(self.port))):
            printed = self.run(step.command)
            assert tour.agree(step.shown, printed.splitlines()), f"$ {step.command}\n{printed}"
