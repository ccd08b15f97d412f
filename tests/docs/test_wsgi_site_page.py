"""docs/deployment/wsgi-site.md: its settings survive a broken connection under WSGI, and spare development."""

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.walk import Walk, environment, steps
from tests.projects.databases import new_database

PAGE = ROOT / "docs" / "deployment" / "wsgi-site.md"
(SETTINGS,) = blocks(PAGE, "python")

URLS = """
from django.contrib.contenttypes.models import ContentType
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(ContentType.objects.count()))]
"""

SHOWN = """
import json
from django.conf import settings
database = settings.DATABASES["default"]
print(json.dumps([database["ENGINE"].rpartition(".")[2], database["CONN_MAX_AGE"], database["CONN_HEALTH_CHECKS"]]))
print(json.dumps(database["OPTIONS"]))
"""

REQUESTS = """
from django.db import connection
from django.test import RequestFactory
from mysite.wsgi import application

def request():
    response = application(RequestFactory().get("/").environ, lambda status, headers: None)
    response.close()
    print(response.status_code, end=" ")

def break_the_connection():
    broken = connection.connection.info.backend_pid
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [broken])
    other.close()

request()
held = connection.connection
if held is not None:
    break_the_connection()
request()
request()
print("held" if held is not None else "closed")
"""


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("age", "checks", "printed"),
    [("60", True, "200 200 200 held"), ("60", False, "200 500 200 held"), ("0", True, "200 200 200 closed")],
)
def test_a_connection_that_a_restart_has_broken_costs_no_request(
    tmp_path: Path, age: str, checks: bool, printed: str
) -> None:
    walk = Walk(tmp_path, {**environment(), "CONN_MAX_AGE": age, "DJANGO_SETTINGS_MODULE": "mysite.production"})
    walk.run("django-admin startproject mysite . --settings=django.conf.global_settings")
    with (walk.folder / "mysite" / "settings.py").open("a") as file:
        file.write('ALLOWED_HOSTS = ["*"]\n')
    production = walk.folder / "mysite" / "production.py"
    production.write_text(
        f"import os\n\nfrom .settings import *\n\nDATABASES = {{'default': {new_database('postgresql', tmp_path)!r}}}\n"
    )
    (walk.folder / "mysite" / "urls.py").write_text(URLS)
    walk.prepare([SETTINGS])
    if not checks:
        with production.open("a") as file:
            file.write('DATABASES["default"]["CONN_HEALTH_CHECKS"] = False\n')
    walk.run("python manage.py migrate")
    (walk.folder / "requests.txt").write_text(REQUESTS)
    assert walk.run("python -c \"exec(open('requests.txt').read())\" 2>/dev/null").split() == printed.split()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The project of the tutorial, with the lines of the page."""
    walk = Walk(tmp_path_factory.mktemp("tutorial"), {**environment(), "CONN_MAX_AGE": "60"})
    pages = [step for name in ("chat", "board", "deploy") for step in steps(name)]
    walk.prepare([step for step in pages if step.language == "python" or re.search(r" start(project|app) ", step.text)])
    walk.prepare([SETTINGS])
    (walk.folder / "shown.txt").write_text(SHOWN)
    return walk


def shown(project: Walk, settings: str) -> tuple[list[object], dict[str, object]]:
    """Return the engine, the age and the checks of connections of the project, and their options."""
    names = f"DJANGO_SETTINGS_MODULE={settings} SITE_HOST=tea.example.org SECRET_KEY=key"
    *_, first, second = project.run(f"{names} python manage.py shell --verbosity 0 < shown.txt").splitlines()
    return json.loads(first), json.loads(second)


def test_the_project_of_the_tutorial_has_the_settings_in_production(project: Walk) -> None:
    assert shown(project, "mysite.production") == (["postgresql", 60, True], {"connect_timeout": 3})


def test_development_on_sqlite_has_none_of_them(project: Walk) -> None:
    kept, options = shown(project, "mysite.settings")
    assert kept == ["sqlite3", 0, False]
    assert set(options) == {"transaction_mode", "timeout", "init_command"}
    project.run("python manage.py migrate")
