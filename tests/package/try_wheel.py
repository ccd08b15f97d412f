"""Uses an installed package in an empty project: `python try_wheel.py`, with the project's settings in the environment.

Prints the last line "works" at its end. It knows nothing of the repository.
"""

from pathlib import Path

import django
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.template.loader import get_template
from django.test import Client
from django.test.utils import setup_test_environment
from django.utils.translation import gettext, override


def main() -> None:
    django.setup()
    setup_test_environment()
    import django_durable_streams

    assert "site-packages" in str(django_durable_streams.__file__), django_durable_streams.__file__
    call_command("migrate", verbosity=0)
    call_command("check", fail_level="WARNING")
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)

    client = Client()
    created = client.put("/streams/first", b"[1]", content_type="application/json")
    assert created.status_code == 201, created.content[:500]
    assert client.post("/streams/first", b"2", content_type="application/json").status_code in (200, 204)
    assert client.get("/streams/first").content == b"[1,2]"
    call_command("streams", "show", "first")

    package = Path(django_durable_streams.__file__).parent
    static, templates = package / "static", package / "templates"
    for path in (path for path in static.rglob("*") if path.is_file()):
        assert finders.find(path.relative_to(static).as_posix()) == str(path)
    for path in templates.rglob("*.html"):
        get_template(path.relative_to(templates).as_posix())
    with override("de"):
        assert gettext("Lifetime and retention") == "Lebensdauer und Aufbewahrung"

    from django.contrib.auth.models import User

    client.force_login(User.objects.create_superuser("ada"))
    assert b"first" in client.get("/admin/durable_streams/stream/").content
    print("works")


if __name__ == "__main__":
    main()
