"""docs/deployment/wsgi-site.md: its settings survive a broken connection under WSGI."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.walk import Walk, environment
from tests.projects.databases import new_database

PAGE = ROOT / "docs" / "deployment" / "wsgi-site.md"
(SETTINGS,) = blocks(PAGE, "python")

URLS = """
from django.contrib.contenttypes.models import ContentType
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(ContentType.objects.count()))]
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
    walk = Walk(tmp_path, {**environment(), "CONN_MAX_AGE": age, "DJANGO_SETTINGS_MODULE": "mysite.settings"})
    walk.run("django-admin startproject mysite . --settings=django.conf.global_settings")
    with (walk.folder / "mysite" / "settings.py").open("a") as file:
        file.write(f'DATABASES["default"] = {new_database("postgresql", tmp_path)!r}\n')
        file.write('ALLOWED_HOSTS = ["*"]\n')
    (walk.folder / "mysite" / "urls.py").write_text(URLS)
    walk.prepare([SETTINGS])
    if not checks:
        with (walk.folder / "mysite" / "settings.py").open("a") as file:
            file.write('DATABASES["default"]["CONN_HEALTH_CHECKS"] = False\n')
    walk.run("python manage.py migrate")
    (walk.folder / "requests.txt").write_text(REQUESTS)
    assert walk.run("python -c \"exec(open('requests.txt').read())\" 2>/dev/null").split() == printed.split()
