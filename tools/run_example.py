"""Serve the example project: migrate its database, create an administrator, then run uvicorn in this process."""

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "example_project"
LOCAL = "127.0.0.1"
ALL_ADDRESSES = "0.0.0.0"
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


def address_of(host: str) -> str:
    """Return the address by which others reach this machine, if the server listens on all of its addresses."""
    if host != ALL_ADDRESSES:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of no machine, to which nothing is sent
        except OSError:  # there is no network
            return LOCAL
        return str(probe.getsockname()[0])


def open_to_others(address: str, port: int) -> None:
    """Let the pages name an address of this machine, and let others use it."""
    os.environ.setdefault("PUBLIC_URL", f"http://{address}:{port}")
    os.environ.setdefault("ALLOWED_HOSTS", f"localhost,127.0.0.1,[::1],{address}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default=LOCAL, help=f"{ALL_ADDRESSES}: other devices may use it, too")
    options = parser.parse_args()
    port: int = options.port
    address = address_of(options.host)
    if address != LOCAL:
        open_to_others(address, port)

    password = prepare()
    print(
        f"""
  chat      http://{address}:{port}/
  board     http://{address}:{port}/board/
  wire      http://{address}:{port}/wire/
  streams   http://{address}:{port}/v1/stream/
  admin     http://{address}:{port}/admin/   user {ADMINISTRATOR}, password {password}
""",
        flush=True,
    )

    # The server replaces this process, so signals to `make run` reach it directly.
    uvicorn = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE), "config.asgi:application"]
    os.execv(sys.executable, [*uvicorn, "--host", options.host, "--port", str(port)])


if __name__ == "__main__":
    main()
