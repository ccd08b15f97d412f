"""Whether a project serves its streams, as `manage.py streams doctor` says it: each project in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from django_durable_streams.server import entry_points

ROOT = Path(__file__).parent.parent.parent
SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_durable_streams"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
ROOT_URLCONF = "shop.urls"
"""
DJANGO = "from django.core.asgi import get_asgi_application\n\napplication = get_asgi_application()\n"
NO_URLS = "urlpatterns = []\n"
URLS = """
from django.urls import include, path

urlpatterns = [path("nested/", include([path("s/", include("django_durable_streams.urls"))]))]
"""
EVENTS = """
from django.urls import include, path
from django_durable_streams.pages import EventView

urlpatterns = [path("nested/", include([path("events/<path:path>", EventView.as_view())]))]
"""
MOUNTED = f"{DJANGO}from django_durable_streams.server.asgi import DurableStreams\n\nstreams = DurableStreams()\n"
ROUTED = f"{DJANGO}from shop.routing import routed\n\napplication = routed\n"
ROUTING = "from django_durable_streams.server.asgi import DurableStreams\n\nrouted = DurableStreams()\n"
# Objects that do more than say their class when they are asked for it.
HOSTILE = f"""{DJANGO}
import weakref

import django_durable_streams.server.asgi as served
from django.utils.functional import SimpleLazyObject


class Gone:
    pass


dead = weakref.proxy(Gone())
lazy = SimpleLazyObject(lambda: 1 / 0)
"""
URLS_SERVE, ASGI_SERVES = "The URLs of the project serve the streams.", "The ASGI application in shop.asgi serves"
NOTE = "Neither the URLs of the project nor the ASGI application in shop.asgi serve"


def findings(folder: Path, modules: dict[str, str]) -> str:
    """What the doctor says about the entry points of a project with these modules. Empty: nothing."""
    (folder / "shop").mkdir()
    for name, text in {"__init__": "", "settings": SETTINGS, "urls": NO_URLS, **modules}.items():
        (folder / "shop" / f"{name}.py").write_text(text)
    code = (
        "import django; django.setup()\n"
        "from django_durable_streams.management.doctor.project import examine_entry_points\n"
        "print(*(f'{one.level.value}: {one.text}' for one in examine_entry_points()), end='')"
    )
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "shop.settings", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ({"asgi": DJANGO}, f"note: {NOTE}"),
        ({"asgi": DJANGO, "urls": URLS}, f"ok: {URLS_SERVE}"),
        ({"asgi": MOUNTED}, f"ok: {ASGI_SERVES}"),
        (
            {"asgi": MOUNTED, "settings": f"{SETTINGS}DEBUG = True\n"},
            f"ok: {ASGI_SERVES} the streams. Django's own runserver does not load it.",
        ),
        (
            {"asgi": MOUNTED, "settings": f"{SETTINGS}DEBUG = True\nINSTALLED_APPS += ['daphne']\n"},
            f"ok: {ASGI_SERVES} the streams.",
        ),
        ({"asgi": ROUTED, "routing": ROUTING}, f"ok: {ASGI_SERVES}"),
        ({"server": MOUNTED, "settings": f"{SETTINGS}ASGI_APPLICATION = 'shop.server.application'\n"}, "ok: The ASGI"),
        ({"asgi": DJANGO, "urls": EVENTS}, ""),
        ({}, ""),
        ({"asgi": "raise RuntimeError"}, ""),
        ({"asgi": "from shop.odd import application", "odd": HOSTILE}, f"note: {NOTE}"),
    ],
)
def test_the_doctor_says_where_streams_are_served(tmp_path: Path, modules: dict[str, str], expected: str) -> None:
    said = findings(tmp_path, modules)
    assert said.startswith(expected) if expected else said == ""
    assert ("runserver" in said) is ("runserver" in expected)


def test_the_views_of_all_urls_are_seen() -> None:
    names = {view.__module__ for view in entry_points.views_of_urls()}
    assert {"django_durable_streams.server.views", "django.contrib.admin.sites"} <= names
