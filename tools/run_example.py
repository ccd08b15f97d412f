"""Serve the example project: migrate its database, create an administrator, then run uvicorn in this process."""

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "example_project"
LOCAL = "127.0.0.1"
ALL_ADDRESSES = {"0.0.0.0": LOCAL, "::": "::1"}
"""The addresses that stand for all of a family, and the address of this machine in it."""
TEST_ADDRESSES = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}
"""Addresses of no machine, to which nothing is sent."""
ADMINISTRATOR = "admin"
PASSWORD_FILE = EXAMPLE / "admin_password.txt"
"""Where the administrator's password is kept between runs. The admin's login page of the example names this file."""


def check_port(host: str, port: int) -> None:
    """Exit if the server cannot listen, before anything is changed that belongs to the first run."""
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        sys.exit(f"Nothing can listen on {host}, port {port}: {error}. Choose others: make run PORT=8001 HOST={LOCAL}")


def password_of_administrator(file: Path = PASSWORD_FILE) -> str:
    """Return ADMIN_PASSWORD, or the password of earlier runs, or a new one that is stored for later runs."""
    if given := os.environ.get("ADMIN_PASSWORD"):
        return given
    try:
        if kept := file.read_text().strip():
            return kept
    except (OSError, UnicodeDecodeError):
        pass
    password = secrets.token_urlsafe(9)
    try:
        file.touch(mode=0o600)
        file.write_text(f"{password}\n")
    except OSError as error:  # such as a folder that is read-only
        print(f"{file} cannot be written: {error}. So the next run has another password.", file=sys.stderr)
    return password


def prepare() -> str:
    """Migrate the database, make sure of the administrator and the password, and return the password."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    sys.path.insert(0, str(EXAMPLE))

    import django
    from django.core.management import call_command
    from django.db import DatabaseError, connection

    django.setup()
    from django.contrib.auth.models import User

    password = password_of_administrator()
    try:
        call_command("migrate", verbosity=0, interactive=False)
        administrator, _ = User.objects.get_or_create(username=ADMINISTRATOR)
        administrator.is_active = administrator.is_staff = administrator.is_superuser = True
        if not administrator.check_password(password):  # another hash would end the administrator's sessions
            administrator.set_password(password)
        administrator.save()
    except DatabaseError as error:  # such as a file in a folder that is read-only
        name = connection.settings_dict["NAME"]
        sys.exit(
            f"The database {name} cannot be used: {error}. Name another one: DATABASE_URL=sqlite:////tmp/db.sqlite3"
        )
    return password


def address_of(host: str) -> str:
    """Return the address by which others reach this machine, if the server listens on all of its addresses."""
    if host not in ALL_ADDRESSES:
        return host
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((TEST_ADDRESSES[host], 9))
        except OSError:  # there is no network
            return ALL_ADDRESSES[host]
        return str(probe.getsockname()[0])


def in_url(address: str) -> str:
    """Return an address as URLs have it."""
    return f"[{address}]" if ":" in address else address


def open_to_others(address: str, port: int) -> None:
    """Let the pages name an address of this machine, and let others use it."""
    os.environ.setdefault("PUBLIC_URL", f"http://{address}:{port}")
    os.environ.setdefault("ALLOWED_HOSTS", f"localhost,127.0.0.1,[::1],{address}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default=LOCAL, help="0.0.0.0 or ::: other devices may use it, too")
    options = parser.parse_args()
    port: int = options.port
    if not 0 < port < 65536:
        parser.error("a port is a number from 1 to 65535")
    check_port(options.host, port)
    address = in_url(address_of(options.host))
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

    # Without the access log, in which each open board writes a line every other second: the lines above stay in sight.
    # The server replaces this process, so signals to `make run` reach it directly.
    uvicorn = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE), "config.asgi:application"]
    os.execv(sys.executable, [*uvicorn, "--host", options.host, "--port", str(port), "--no-access-log"])


if __name__ == "__main__":
    main()
