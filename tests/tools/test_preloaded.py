"""A program that is forked from one that has done its imports runs as in a new interpreter."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import preloaded
from tests.servers import EXAMPLE, example_environment

PROGRAM = """
    import json, os, sys, threading
    print(json.dumps([sys.argv, sys.path[:3], os.getcwd(), dict(os.environ), __name__, os.getpgid(0) == os.getpid()]))
    print(sorted(os.listdir("/proc/self/fd"), key=int)[:3], threading.active_count(), file=sys.stderr)
    {end}
"""
ENDS = {"by itself": "", "with a status": "sys.exit(3)", "with an error": "1 / 0", "at once": "os._exit(7)"}
IMPORTS = """
import json, sys
import django_durable_streams.urls, django_durable_streams.models.stream, config.settings, django.contrib.auth.models
names = ["django_durable_streams.urls", "django_durable_streams.models.stream", "config.settings"]
modules = [sys.modules[name] for name in names]
print(json.dumps([[each.__name__, each.__file__, each.__cached__, each.__package__] for each in modules]))
print(type(modules[1].__loader__).__name__, modules[1].Stream.append.__code__.co_filename)
"""
SPAWNS = """
import atexit, multiprocessing, os, signal, sys, time

def work(kind, lock):
    with lock:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
        print(kind, __name__, sys.argv, sys.path[:3], os.getcwd(), handlers, len(os.listdir("/proc/self/fd")))
    atexit.register(print, "the end of", kind)
    match kind:
        case "status": sys.exit(3)
        case "error": 1 / 0
        case "killed": os.kill(os.getpid(), signal.SIGTERM)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, print)
    signal.signal(signal.SIGINT, print)
    signal.signal(signal.SIGUSR1, print)
    spawn = multiprocessing.get_context("spawn")
    lock = spawn.Lock()
    idle = spawn.Process(target=time.sleep, args=(600,), daemon=True)
    idle.start()
    for kind in ("return", "status", "error", "killed"):
        process = spawn.Process(target=work, args=(kind, lock))
        process.start()
        process.join()
        print(process.exitcode, process.pid != os.getpid())
    print(idle.exitcode)
"""
SETTINGS = """
import importlib, json, sys
from django.apps import apps
from django.conf import settings
from django.db import connections
from django.core.exceptions import AppRegistryNotReady
try:
    apps.get_app_configs()
except AppRegistryNotReady as error:
    print(error)
import django
django.setup()
from django.contrib import admin
from django.core import checks
from django_durable_streams.conf import config
print({name: getattr(settings, name) for name in sorted(dir(settings)) if name.isupper()})
print(connections.settings, config(), apps.ready_event.is_set())
print([(each.name, type(each).__name__) for each in apps.get_app_configs()])
print(sorted(each._meta.label for each in apps.get_models()), sorted(map(str, admin.site._registry)))
print(sorted(each.__module__ + each.__qualname__ for each in checks.registry.registry.registered_checks))
print([each.id for each in checks.run_checks()], settings.SETTINGS_MODULE)
print(importlib.import_module("config.urls").urlpatterns)
"""
CLASSES = "django_durable_streams.permissions.ModelPermissions"
TIMEOUT = 60.0

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="it needs Linux")


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM.format(end=request.param)))
    return path


@pytest.mark.parametrize("program", ENDS.values(), ids=list(ENDS), indirect=True)
@pytest.mark.parametrize("way", ["module", "script", "text"])
def test_it_finds_what_a_new_interpreter_gives_it(program: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"module": ["-m", "program"], "script": [str(program)], "text": ["-c", program.read_text()]}
    command = [sys.executable, *programs[way], "one", "two"]
    env = {
        "PYTHONPATH": os.pathsep.join([str(program.parent), "/elsewhere"]),
        "PYTHONUNBUFFERED": "1",
        "LC_CTYPE": "C.UTF-8",
        "OWN": "é",
    }
    forked, new = (
        preloaded.run(command, cwd=program.parent, env=env, timeout=TIMEOUT)
        for value in ("1", "0")
        if monkeypatch.setenv("TESTS_PRELOAD", value) is None
    )
    assert (forked.returncode, forked.stdout) == (new.returncode, new.stdout)
    assert forked.stderr.splitlines()[-1:] == new.stderr.splitlines()[-1:]


def test_modules_that_need_settings_are_those_of_a_new_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import django; django.setup()" + IMPORTS
    env = example_environment({"DATABASE_URL": "sqlite://:memory:"})
    forked, new = (
        preloaded.run([sys.executable, "-c", program], cwd=EXAMPLE, env=env, timeout=TIMEOUT)
        for value in ("1", "0")
        if monkeypatch.setenv("TESTS_PRELOAD", value) is None
    )
    assert (forked.returncode, forked.stdout) == (new.returncode, new.stdout)
    assert (forked.returncode, forked.stderr) == (0, "")


@pytest.mark.parametrize("settings", ["tests.serving_settings", "tests.metrics.server_settings", "config.settings"])
def test_settings_and_apps_are_those_of_a_new_interpreter(settings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {
        "DATABASE_URL": "postgresql://me@elsewhere/own",
        "REDIS_URL": "redis://elsewhere/3",
        "PERMISSION": CLASSES,
    }
    env = example_environment({**own, "EXAMPLE_DOOR": "urls", "DJANGO_SETTINGS_MODULE": settings})
    forked, new = (
        preloaded.run([sys.executable, "-c", SETTINGS], cwd=EXAMPLE, env=env, timeout=TIMEOUT)
        for value in ("1", "0")
        if monkeypatch.setenv("TESTS_PRELOAD", value) is None
    )
    assert forked.stdout.splitlines() == new.stdout.splitlines()
    assert (forked.returncode, forked.stderr) == (0, "")


def test_processes_of_multiprocessing_are_those_of_a_new_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spawns.py").write_text(SPAWNS)
    env = {"PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    forked, new = (
        preloaded.run([sys.executable, "-m", "spawns"], cwd=tmp_path, env=env, timeout=TIMEOUT)
        for value in ("1", "0")
        if monkeypatch.setenv("TESTS_PRELOAD", value) is None
    )
    assert forked.stdout.splitlines() == new.stdout.splitlines()
    assert (forked.returncode, new.returncode) == (0, 0)
    assert [text.splitlines()[-1] for text in (forked.stderr, new.stderr)] == [
        "ZeroDivisionError: division by zero"
    ] * 2


def test_a_program_reads_its_stdin(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print(len(sys.stdin.read()))"]
    for content in (b"", b"x" * 100_000):
        done = preloaded.run_for_bytes(command, cwd=tmp_path, env={}, timeout=TIMEOUT, stdin=content)
        assert (done.returncode, done.stdout) == (0, b"%d\n" % len(content))


def test_its_end_is_told(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text("import time; time.sleep(600)")
    with (tmp_path / "output").open("wb") as output:
        process = preloaded.start([sys.executable, str(script)], cwd=tmp_path, env={}, output=output.fileno())
        try:
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.terminate()
            assert process.wait(TIMEOUT) == -15
        finally:
            process.kill()
    assert process.poll() == -15
