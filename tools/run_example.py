"""Serve the example project: migrate its database, create an administrator, then run uvicorn in this process."""

import argparse
import os
import secrets
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "example_project"
HOST = "127.0.0.1"
ADMINISTRATOR = "admin"


def prepare() -> str:
    """Migrate the database, give the administrator a new password, and return the password."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    sys.path.insert(0, str(EXAMPLE))

    import django
    from django.core.management import call_command

    django.setup()
    from django.contrib.auth.models import User

    call_command("migrate", verbosity=0, interactive=False)

    # Only the hash of an earlier password is stored, so it could not be printed again.
    password = secrets.token_urlsafe(9)
    administrator, _ = User.objects.get_or_create(username=ADMINISTRATOR)
    administrator.is_active = administrator.is_staff = administrator.is_superuser = True
    administrator.set_password(password)
    administrator.save()
    return password


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port: int = parser.parse_args().port

    password = prepare()
    print(
        f"""
  page      http://{HOST}:{port}/
  streams   http://{HOST}:{port}/v1/stream/
  admin     http://{HOST}:{port}/admin/   user {ADMINISTRATOR}, password {password}
""",
        flush=True,
    )

    # The server replaces this process, so signals to `make run` reach it directly.
    uvicorn = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE), "config.asgi:application"]
    os.execv(sys.executable, [*uvicorn, "--host", HOST, "--port", str(port)])


if __name__ == "__main__":
    main()
