"""What docs/consumers.md shows works, and its tables have every option."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from django.core.management import load_command_class

from django_durable_streams.consumers import Batch, Consumer
from django_durable_streams.subscriptions import backoff
from django_durable_streams.subscriptions.consumers import failures, parking, task_run, task_wakes, worker
from django_durable_streams.subscriptions.consumers.declarations import MAX_LEASE_SECONDS, ConsumerOptions
from tests.docs.pages import ROOT, blocks, code, section, table

PAGE = ROOT / "docs" / "consumers.md"
TEXT = " ".join(PAGE.read_text().split())
SECONDS = 60


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the app that the page shows."""
    settings = 'from tests.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, "billing"]\n'
    (tmp_path / "settings.py").write_text(settings)
    (tmp_path / "billing").mkdir()
    (tmp_path / "billing" / "__init__.py").touch()
    for block in blocks(PAGE, "python"):
        name = re.match(r"# (billing/\w+\.py)\n", block.text)
        assert name is not None
        (tmp_path / name[1]).write_text(block.text)
    return tmp_path


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(project), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "django", *arguments],
        cwd=project,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def manage(project: Path, *arguments: str) -> str:
    with start(project, *arguments) as process:
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    return output


def test_the_projection_and_its_tests_work(project: Path) -> None:
    assert "no issues" in manage(project, "check")
    output = manage(project, "test", "billing")
    assert "Ran 2 tests" in output
    assert "OK" in output


def test_the_table_has_every_option_with_its_default() -> None:
    rows = {code(row[0]): row[1] for row in table(section(PAGE, "Declare a consumer"))}
    assert set(rows) == set(ConsumerOptions.__annotations__)
    fields = Consumer.__dataclass_fields__
    for name, shown in rows.items():
        if shown.startswith("`") and name != "dead_letters":
            assert eval(code(shown)) == fields[name].default, name
    assert f"1 to {MAX_LEASE_SECONDS:.0f}" in TEXT


def test_the_table_has_every_attribute_of_a_batch() -> None:
    text = section(PAGE, "Batches")
    assert set(Batch.__dataclass_fields__) <= set(re.findall(r"`batch\.(\w+)`", text))


def options_of(parser: Any) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings if option.startswith("--")}


def shown_options(title: str) -> set[str]:
    return {name for row in table(section(PAGE, title)) for name in re.findall(r"(--[\w-]+)", row[0])}


def test_the_tables_have_every_option_of_the_commands() -> None:
    def parser(name: str) -> Any:
        return load_command_class("django_durable_streams", name).create_parser("manage.py", name)

    of_check = options_of(load_command_class("django.core", "check").create_parser("manage.py", "check"))
    common = of_check | {"--skip-checks"}  # which `check` alone has not
    assert options_of(parser("streams_worker")) - (common - {"--database"}) == shown_options("Run consumers")
    (actions,) = [action.choices for action in parser("streams")._actions if action.dest == "action"]
    assert options_of(actions["replay"]) - common == shown_options("Replay")
    assert options_of(actions["resume"]) - common == {"--streams", "--subscription"}
    assert options_of(actions["pause"]) - common == {"--subscription"}


def test_the_numbers_are_those_of_the_code() -> None:
    assert (backoff.MIN_BACKOFF, backoff.MAX_BACKOFF) == (1, 60)
    assert "after 1 second, then after 2, 4 and so on, up to a minute" in TEXT
    assert task_run.RUN_SECONDS == task_wakes.LOST_SECONDS == 60
    assert "for a minute at most" in TEXT
    assert "followed by another one after a minute" in TEXT
    assert parking.MAX_VALUE_BYTES == 1024 * 1024
    assert "more than 1 MiB is left out" in TEXT
    assert failures.MAX_LOST == 10
    assert "from the eleventh time on" in TEXT
    assert worker.PATTERN_INTERVAL == 60
    assert "once a minute" in TEXT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_run_consumers_until_their_parent_ends(project: Path, number: signal.Signals) -> None:
    manage(project, "migrate", "--run-syncdb", "--verbosity", "0")
    append = (
        "from django_durable_streams.models import Stream; "
        "order = Stream.objects.create(path='orders/7', content_type='application/json'); "
        "order.append({'type': 'ItemAdded', 'euros': 3})"
    )
    manage(project, "shell", "--verbosity", "0", "-c", append)
    with start(project, "streams_worker", "--processes", "2", "--no-delivery", "--verbosity", "2") as worker:
        try:
            assert worker.stdout is not None
            timer = Timer(SECONDS, worker.kill)
            timer.start()
            lines = [worker.stdout.readline(), worker.stdout.readline()]
            worker.send_signal(number)
            lines += worker.stdout.readlines()  # up to the end of the last process
            assert worker.wait() == (0 if number == signal.SIGTERM else -number), lines
        finally:
            timer.cancel()
            worker.kill()
    assert lines[0] == "Running order-totals. Quit with Ctrl-C.\n"
    assert lines[1].startswith("order-totals: handled 1 of orders/7 in ")
    assert lines[2:] == []
