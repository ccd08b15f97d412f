"""Install packages into a virtual environment: `python3 tools/install_packages.py .venv pytest -c constraints.txt`.

The first argument is the environment, the others are those of `pip install`. uv installs them, because it takes a
tenth of pip's time. Where pip is configured to use another index, or where uv fails, pip installs them. Uses the
standard library only, since it runs before anything is installed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OWN_INDEX = ("index-url", "no-index")
"""Options of pip that say where packages come from. uv does not read pip's configuration."""


def main(folder: str, arguments: list[str]) -> int:
    """Install the packages and return the exit status of the installer."""
    python = str(Path(folder) / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    install = ["install", "--quiet", *arguments]
    configuration = subprocess.run([*pip, "config", "list"], check=False, capture_output=True, text=True).stdout
    if not any(option in configuration for option in OWN_INDEX):
        made = subprocess.run([*pip, "install", "--quiet", "-c", str(ROOT / "constraints.txt"), "uv"], check=False)
        if made.returncode == 0:
            uv = [python, "-m", "uv", "pip", *install, "--python", python]
            if subprocess.run(uv, check=False).returncode == 0:
                return 0
            print("uv has failed, so pip installs the packages", file=sys.stderr)
    return subprocess.run([*pip, *install], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
