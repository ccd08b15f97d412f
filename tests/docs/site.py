"""The site of the documentation, built once for all tests of a run, whatever process they are in."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

BUILD_SECONDS = 300

# What Sphinx makes of a page stays until its end, so there is little garbage to collect.
SPHINX = "import gc, runpy; gc.disable(); runpy.run_module('sphinx', run_name='__main__', alter_sys=True)"


def built_site(temporary: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, which the first test that asks has built.

    A warning of Sphinx is an error, and fails every test that asks.
    """
    base = temporary.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    site, log = shared / "site", shared / "site.log"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            build(site, log)
    assert (site / "index.html").exists(), log.read_text()
    return site


def build(site: Path, log: Path) -> None:
    """Build the site into a folder. The log has what Sphinx says."""
    doctrees = site.with_name("site-doctrees")
    command = [sys.executable, "-c", SPHINX, "-W", "-q", "-b", "html", "-d", str(doctrees)]
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(site)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        (site / "index.html").unlink(missing_ok=True)
    log.write_text(done.stdout)
