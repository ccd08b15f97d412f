"""A real, small Django project in a folder of its own: its settings, and scripts that run in it as processes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import preloaded

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 120

SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}

_SETTINGS = """
from typing import Any
SECRET_KEY = "only-for-tests-" * 4
ALLOWED_HOSTS = ["testserver"]
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles", "django_durable_streams",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
ROOT_URLCONF = "urls"
STATIC_URL = "/static/"
PREFIX = "v1/stream/"
DURABLE_STREAMS: dict[str, Any] = {"PERMISSION_CLASSES": "django_durable_streams.permissions.AllowAll"}
"""

_URLS = """
from django.conf import settings
from django.contrib import admin
from django.urls import include, path
urlpatterns = [path("admin/", admin.site.urls), path(settings.PREFIX, include("django_durable_streams.urls"))]
"""

_PEOPLE = """
import uuid
from django.contrib.auth.models import AbstractUser
from django.db import models
class Person(AbstractUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
"""

_FIELDS = """
import uuid
from django.db import models
class KeyField(models.BigAutoField):
    \"\"\"A project's own kind of primary key.\"\"\"
"""

_ROUTERS = """
class Router:
    def db_for_read(self, model, **hints):
        return "streams" if model._meta.app_label == "durable_streams" else None
    db_for_write = db_for_read
    def allow_migrate(self, db, app_label, **hints):
        return (db == "streams") == (app_label == "durable_streams")
"""


def sqlite(folder: Path, name: str = "db.sqlite3", **changed: Any) -> dict[str, Any]:
    """Settings of a SQLite database in a folder."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / name),
        **changed,
        "OPTIONS": {**SQLITE_OPTIONS, **changed.get("OPTIONS", {})},
    }


class Project:
    """A project on a database.

    Args:
        folder: an empty one, for its files.
        databases: its DATABASES.
        source: lines of Python for the end of its settings.
    """

    def __init__(self, folder: Path, databases: Mapping[str, Any], source: str = "") -> None:
        self.folder = folder
        (folder / "settings.py").write_text(f"{_SETTINGS}\nDATABASES: dict[str, Any] = {dict(databases)!r}\n{source}\n")
        (folder / "urls.py").write_text(_URLS)
        (folder / "routers.py").write_text(_ROUTERS)
        # An app with a user model of its own, for those that install it.
        (folder / "people").mkdir()
        (folder / "people" / "__init__.py").touch()
        (folder / "people" / "models.py").write_text(_PEOPLE)
        (folder / "people" / "fields.py").write_text(_FIELDS)

    def start(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a module as a process of the project, and return what it has said, whatever became of it."""
        ours = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment["DJANGO_SETTINGS_MODULE"] = "settings"
        environment["PYTHONPATH"] = os.pathsep.join([str(self.folder), str(ROOT)])
        command = [sys.executable, "-m", module, *arguments]
        return preloaded.run(command, cwd=self.folder, env=environment, timeout=SECONDS)

    def run(self, module: str, *arguments: str) -> dict[str, Any]:
        """Run a script of these tests, and return what it has found: the last line that it has printed, as JSON."""
        done = self.start(module, *arguments)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result | {"log": done.stderr}

    def migrate(self) -> None:
        """Make the tables of all databases."""
        self.run("tests.projects.migrate")
