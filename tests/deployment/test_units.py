"""The units of docs/deployment/systemd.md."""

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
PROGRAM = "/srv/mysite/.venv/bin/uvicorn"


def name_of(block: Block) -> str:
    match = re.match(r"# /etc/systemd/system/(\S+)\n", block.text)
    assert match is not None
    return match[1]


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    verifier = locate("systemd-analyze")
    assert verifier is not None, "systemd is not installed"
    uvicorn = shutil.which("uvicorn", path=str(Path(sys.executable).parent))
    assert uvicorn is not None
    for block in UNITS:
        text = replaced(block.text, [(PROGRAM, uvicorn)]) if PROGRAM in block.text else block.text
        (tmp_path / name_of(block)).write_text(text)
    files = [str(tmp_path / name_of(block)) for block in UNITS]
    done = subprocess.run([str(verifier), "verify", *files], capture_output=True, text=True, check=False)
    # It looks at the system's own units, too. Their faults are not ours.
    faults = [line for line in done.stderr.splitlines() if "streams." in line]
    assert faults == []


def test_the_units_that_refer_to_each_other_are_there() -> None:
    assert {name_of(block) for block in UNITS} == {"streams.socket", "streams.service"}


@pytest.mark.parametrize("block", [block for block in UNITS if PROGRAM in block.text], ids=name_of)
def test_the_service_gives_its_workers_the_time_that_they_need(block: Block) -> None:
    (grace,) = re.findall(r"--timeout-graceful-shutdown (\d+)", block.text)
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", block.text, re.MULTILINE)
    assert GRACE_SECONDS < int(grace) < int(stop)
