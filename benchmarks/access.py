"""The cost of permissions: the same appends and reads with no checks, with a session, and with a signed URL.

python -m benchmarks.access [--rounds 5] [--seconds 2] [append read] [100 1000]

The servers run side by side and the measurements alternate, so other load on the machine affects all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import wrk
from benchmarks.client import Address, Client
from benchmarks.outcome import MeasurementError
from benchmarks.targets import ROOT, START_SECONDS, Ours, TargetError
from benchmarks.workload import body_file
from benchmarks.writes import BINARY, WARM_UP_SECONDS, binary

PERMISSIONS = "django_durable_streams.permissions"
CONNECTIONS = 64
NAME = "measured"

# Prints the headers of a browser with a session, and the token of a signed URL.
CREDENTIALS = f"""
import django; django.setup()
import json, time
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import Client
from django_durable_streams.permissions import sign
user = User.objects.create_user("bench")
user.user_permissions.set(Permission.objects.filter(content_type__app_label="durable_streams"))
client = Client(); client.force_login(user)
csrf = "x" * 32
print(json.dumps({{
    "session": {{
        "Cookie": f"sessionid={{client.cookies['sessionid'].value}}; csrftoken={{csrf}}",
        "X-CSRFToken": csrf,
    }},
    "token": sign({NAME!r}, "create", "read", "append", expires=3600),
}}))
"""


class Guarded(Ours):
    """The example project with a permission class, and credentials for it."""

    def __init__(self, key: str, permission: str) -> None:
        super().__init__(key, key)
        self.permission = permission
        self.session: dict[str, str] = {}
        self.token = ""
        self.address: Address

    def start(self) -> Address:
        self.address = super().start()
        return self.address

    def environment(self, directory: Path) -> dict[str, str]:
        return {**super().environment(directory), "PERMISSION": f"{PERMISSIONS}.{self.permission}"}

    def prepare(self, directory: Path) -> None:
        super().prepare(directory)
        made = subprocess.run(
            [sys.executable, "-c", CREDENTIALS],
            cwd=ROOT,
            env=self.environment(directory),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if made.returncode:
            raise TargetError(made.stderr[-600:])
        credentials = json.loads(made.stdout)
        self.session, self.token = credentials["session"], credentials["token"]


@dataclass
class Side:
    """A server as one kind of client uses it."""

    name: str
    address: Address
    headers: dict[str, str]
    query: str

    def target(self, query: str = "") -> str:
        return f"{NAME}?{'&'.join(part for part in (query, self.query) if part)}".removesuffix("?")


def sides(stack: ExitStack) -> Iterator[Side]:
    """Yield the sides. The open server also gets the longer requests, whose cost is not that of permissions."""
    started = {}
    for permission in ("AllowAll", "ModelPermissions", "SignedURLs"):
        target = started[permission] = Guarded(permission, permission)
        target.start()
        stack.callback(target.stop)
    everything, model, signed = started.values()
    token = f"token={signed.token}"
    yield Side("open", everything.address, {}, "")
    yield Side("session", model.address, model.session, "")
    yield Side("session at open", everything.address, model.session, "")
    yield Side("signed", signed.address, {}, token)
    yield Side("signed at open", everything.address, {}, token)


@contextmanager
def stream(side: Side, body: bytes) -> Iterator[None]:
    """Make a stream with one append. Where credentials are needed, check that a request without them is refused."""
    with Client(side.address) as client:
        if "open" not in side.name:
            client.request("PUT", NAME, headers={"Content-Type": BINARY}, expect=(403,))
        headers = {**side.headers, "Content-Type": BINARY}
        client.request("PUT", side.target(), headers=headers, expect=(200, 201))
        client.request("POST", side.target(), body, headers, expect=(204,))
        yield


def measure(side: Side, operation: str, body: str, seconds: int) -> float:
    headers = dict(side.headers)
    if operation == "append":
        method, file, url = "POST", body, side.address.url(side.target())
        headers["Content-Type"] = BINARY
    else:
        method, file, url = "GET", "-", side.address.url(side.target("offset=-1"))
    arguments = [method, file, *(f"{name}={value}" for name, value in headers.items())]
    counts = wrk.run("fixed", url, arguments, threads=1, connections=CONNECTIONS, seconds=seconds)
    if counts.errors:
        raise MeasurementError(f"{side.name}, {operation}: {'; '.join(counts.errors)}")
    return counts.rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", help="append, read, and sizes in bytes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    arguments = parser.parse_args()
    operations = [what for what in arguments.what if not what.isdigit()] or ["append", "read"]
    sizes = [int(what) for what in arguments.what if what.isdigit()] or [100, 1000]
    for operation in operations:
        for size in sizes:
            with ExitStack() as stack:
                file = stack.enter_context(body_file(binary(size)))
                chosen = list(sides(stack))
                for side in chosen:
                    stack.enter_context(stream(side, binary(size)))
                    measure(side, operation, file, WARM_UP_SECONDS)
                rates: dict[str, list[float]] = {side.name: [] for side in chosen}
                for _ in range(arguments.rounds):
                    for side in chosen:
                        rates[side.name].append(measure(side, operation, file, arguments.seconds))
            medians = {name: statistics.median(each) for name, each in rates.items()}
            shown = ", ".join(f"{name} {rate:,.0f}/s ({rate / medians['open']:.0%})" for name, rate in medians.items())
            print(f"{operation} of {size} B: {shown}", flush=True)


if __name__ == "__main__":
    main()
