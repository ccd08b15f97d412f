"""The outputs of targets that run side by side appear as they are."""

import os
import subprocess
import sys
from pathlib import Path

from tools.side_by_side import ROOT

MAKE = """#!/bin/sh
shift
printf 'output of %s: \\377\\n' "$1"
test "$1" != bad
"""


def test_an_output_that_is_no_text_is_shown_and_hides_no_result(tmp_path: Path) -> None:
    make = tmp_path / "make"
    make.write_text(MAKE)
    make.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, str(ROOT / "tools" / "side_by_side.py"), "first", "bad", "last"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    for target in ("first", "bad", "last"):
        assert b"output of %s: \xff\n" % target.encode() in done.stdout
    assert done.stderr == b"make bad failed\n"
