"""No struct is examined by two threads at once, which crashes the process: each is, when its module is imported."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

FIND = """
import importlib, pkgutil, sys
ENCODED = ["django_durable_streams.server.listing"]  # whose structs are never decoded
import django
django.setup()
import msgspec
import django_durable_streams as package

for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if ".migrations" not in module.name:
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            print(module.name, error, file=sys.stderr)

def below(kind):
    for child in kind.__subclasses__():
        yield child
        yield from below(child)

for struct in set(below(msgspec.Struct)):
    if struct.__module__.startswith(package.__name__) and struct.__module__ not in ENCODED:
        struct.__annotations__ = {**struct.__annotations__, "later": "NoSuchName"}
        try:
            msgspec.json.Decoder(struct)
            print("examined", struct.__qualname__)
        except NameError:
            print("unexamined", struct.__module__, struct.__qualname__)
"""
"""A struct that was examined does not look at its annotations again."""

RACE = """
import sys, threading
import django
django.setup()
from django_durable_streams.contrib.ai import events
from django_durable_streams.contrib.ai.views import requests

sys.setswitchinterval(1e-6)
barrier = threading.Barrier(8)

def decode():
    barrier.wait()
    assert events.decode({"type": "finish", "run": "r"}) is not None
    requests.parse(b'{"threadId":"t","runId":"r","messages":[]}', requests.AGUIBody)

threads = [threading.Thread(target=decode) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    settings = {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120, check=False
    )


def test_every_struct_is_examined_when_its_module_is_imported() -> None:
    done = run(FIND)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("unexamined")] == [], done.stderr
    assert "examined _Stored" in lines


def test_the_first_requests_of_a_process_may_come_at_once() -> None:
    for _ in range(3):
        done = run(RACE)
        assert done.returncode == 0, done.stderr
