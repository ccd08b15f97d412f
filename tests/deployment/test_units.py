"""The units of docs/deployment: of systemd.md, and those that a site under WSGI has in their place."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment.proxies import PAGES, replaced
from tests.docs.pages import Block, blocks
from tests.servers import GRACE_SECONDS
from tools.ensure_system import locate

UNITS = blocks(PAGES / "systemd.md", "ini")
WSGI_UNITS = blocks(PAGES / "wsgi-site.md", "ini")
PROGRAMS = "/srv/mysite/.venv/bin"
PROGRAM = f"{PROGRAMS}/uvicorn"


def name_of(block: Block) -> str:
    match = re.match(r"# /etc/systemd/system/(\S+)\n", block.text)
    assert match is not None
    return match[1]


def units_of(page: str) -> dict[str, str]:
    """The units that a reader of a page has, by their names. Those of the second page take the place of the first."""
    return {name_of(block): block.text for block in (*UNITS, *(WSGI_UNITS if page == "wsgi-site" else ()))}


@pytest.mark.parametrize("page", ["systemd", "wsgi-site"])
def test_systemd_accepts_the_units(page: str, tmp_path: Path) -> None:
    verifier = locate("systemd-analyze")
    assert verifier is not None, "systemd is not installed"
    uvicorn = shutil.which("uvicorn", path=str(Path(sys.executable).parent))
    assert uvicorn is not None
    for name, text in units_of(page).items():
        # gunicorn is no requirement of the tests. systemd only looks whether the program is there.
        commands = re.findall(rf"{PROGRAMS}/\w+", text)
        (tmp_path / name).write_text(replaced(text, [(command, uvicorn) for command in commands]))
    files = [str(tmp_path / name) for name in units_of(page)]
    done = subprocess.run([str(verifier), "verify", *files], capture_output=True, text=True, check=False)
    # It looks at the system's own units, too. Their faults are not ours.
    faults = [line for line in done.stderr.splitlines() if "streams." in line or "site.service" in line]
    assert faults == []


def test_the_units_that_refer_to_each_other_are_there() -> None:
    assert set(units_of("systemd")) == {"streams.socket", "streams.service"}
    assert set(units_of("wsgi-site")) == {"streams.socket", "streams.service", "site.service"}


def test_the_units_of_a_site_under_wsgi_have_the_ports_and_commands_of_its_page() -> None:
    (configuration,) = blocks(PAGES / "wsgi-site.md", "nginx")
    ports = dict(re.findall(r"upstream (\w+) \{\s+server (\S+);", configuration.text))
    units = units_of("wsgi-site")
    assert f"\nListenStream={ports['streams']}\n" in units["streams.socket"]
    assert f" --bind {ports['site']} " in units["site.service"]
    # Nothing but the port differs from the socket of the other page, and nothing but the socket from the command.
    (socket,) = [block.text for block in UNITS if name_of(block) == "streams.socket"]
    assert units["streams.socket"] == replaced(socket, [("127.0.0.1:8000", ports["streams"])])
    shell = next(block.text for block in blocks(PAGES / "wsgi-site.md", "sh") if "gunicorn mysite" in block.text)
    start = re.findall(rf"^ExecStart={PROGRAMS}/((?:.+\\\n)*.+)$", units["site.service"], re.MULTILINE)
    start += re.findall(rf"^ExecStart={PROGRAMS}/((?:.+\\\n)*.+)$", units["streams.service"], re.MULTILINE)
    address = ports["streams"].split(":")
    assert start == [
        command.replace(f"--host {address[0]} --port {address[1]}", "--fd 3")
        for command in re.findall(r"^(?:gunicorn|uvicorn) (?:.+\\\n)*.+$", shell, re.MULTILINE)
    ]
    assert all("--no-access-log" in command for command in start if command.startswith("uvicorn"))


@pytest.mark.parametrize("block", [block for block in UNITS if PROGRAM in block.text], ids=name_of)
def test_the_service_gives_its_workers_the_time_that_they_need(block: Block) -> None:
    (grace,) = re.findall(r"--timeout-graceful-shutdown (\d+)", block.text)
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", block.text, re.MULTILINE)
    assert GRACE_SECONDS < int(grace) < int(stop)
