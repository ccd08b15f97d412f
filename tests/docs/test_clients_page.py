"""The programs of docs/howto/clients.md that are marked as tested, against a server."""

import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from durable_streams import DurableStream

from django_durable_streams.conf import Config
from tests.docs.client_programs import PAGE, PROGRAMS, missing, prepare
from tests.docs.pages import table
from tests.servers import HOST, Server

pytestmark = pytest.mark.browser

OUTPUT_SECONDS = 60
TEXT = re.compile(r"""["']?text["']?\s*:\s*["'](\w+)["']""")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uvicorn") as server:
        yield server


def rows(checked: str) -> set[str]:
    """The languages of the page that are marked so."""
    return {row[0].partition("]")[0].lstrip("[") for row in table(PAGE.read_text()) if row[3] == checked}


def test_these_are_tested_with_every_change() -> None:
    assert rows("tested") == {name for name, program in PROGRAMS.items() if not program.from_sources}


def test_these_are_tested_from_their_sources() -> None:
    assert rows("tested from sources") == {name for name, program in PROGRAMS.items() if program.from_sources}


@pytest.mark.parametrize("language", PROGRAMS)
def test_it_reads_what_is_stored_and_follows_until_the_stream_is_closed(
    language: str, server: Server, tmp_path: Path
) -> None:
    command, stream = ready(language, server, tmp_path)
    with Running(command, tmp_path) as running:
        assert running.next_text() == "hello"
        # An idle long-poll passes first: the program has time to wait for data, too.
        idle = httpx.get(stream, params={"offset": "now", "live": "long-poll"})
        assert idle.status_code == 204
        httpx.post(stream, json={"text": "open"}).raise_for_status()
        assert running.next_text() == "open"
        httpx.post(stream, json={"text": "last"}, headers={"Stream-Closed": "true"}).raise_for_status()
        assert running.next_text() == "last"
        assert running.next_text() is None
        assert running.process.wait(OUTPUT_SECONDS) == 0


@pytest.mark.parametrize("language", PROGRAMS)
def test_it_ends_if_the_stream_is_closed_without_data(language: str, server: Server, tmp_path: Path) -> None:
    command, stream = ready(language, server, tmp_path)
    with Running(command, tmp_path) as running:
        assert running.next_text() == "hello"
        httpx.post(stream, headers={"Stream-Closed": "true"}).raise_for_status()
        assert running.next_text() is None
        assert running.process.wait(OUTPUT_SECONDS) == 0


def test_a_long_poll_is_answered_before_the_client_gives_up() -> None:
    read_timeout = DurableStream("http://127.0.0.1/")._client.timeout.read
    assert read_timeout is not None
    assert Config().long_poll_timeout <= read_timeout - 5


def ready(language: str, server: Server, folder: Path) -> tuple[list[str], str]:
    """The command of a program, built in a folder, and the URL of its stream, which does not exist yet."""
    program = PROGRAMS[language]
    if reason := missing(program):
        pytest.skip(reason)
    stream = f"{server.base_url}/v1/stream/clients/{language.lower()}"
    httpx.delete(stream)
    return prepare(program, folder, f"{HOST}:{server.port}"), stream


class Running:
    """A program that runs, and the texts of the messages that it prints. It is killed at the end of the block."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._errors = (folder / "errors.txt").open("w+")
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self._texts: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> "Running":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self._errors.close()

    def next_text(self) -> str | None:
        """The text of the next message that is printed, or None at the end of the output."""
        try:
            text = self._texts.get(timeout=OUTPUT_SECONDS)
        except queue.Empty:
            pytest.fail(f"no output\n{self._error_text()}")
        if text is None and self.process.wait(OUTPUT_SECONDS) != 0:
            pytest.fail(self._error_text())
        return text

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                for text in TEXT.findall(line):
                    self._texts.put(text)
        self._texts.put(None)

    def _error_text(self) -> str:
        self._errors.seek(0)
        return self._errors.read()
