"""Run the unit tests on several Pythons: `python3 tools/matrix.py 3.11 3.12 3.13`.

Each version gets a virtual environment of its own, `.venv-3.x`. Versions that the machine does not have are
named and left out; it is an error only if none is found.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("pyproject.toml", "constraints.txt")


def candidates(version: str) -> Iterator[Path]:
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    # pyenv's own commands on PATH refuse to start a version that is not the selected one.
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    yield Path(sys.executable)


def find_python(version: str) -> Path | None:
    for candidate in candidates(version):
        command = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def install(python: Path, venv: Path) -> Path:
    """An environment with the development requirements; an existing one is kept while they are unchanged."""
    stamp = venv / ".installed-dev"
    newest = max((ROOT / name).stat().st_mtime for name in INPUTS)
    if not stamp.exists() or stamp.stat().st_mtime < newest:
        subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-e", ".[dev]", "-c", "constraints.txt"], cwd=ROOT, check=True)
        stamp.touch()
    return venv / "bin" / "python"


def main(versions: list[str]) -> int:
    results: dict[str, str] = {}
    for version in versions:
        python = find_python(version)
        if python is None:
            results[version] = "not found"
            continue
        print(f"--- Python {version}: {python}", flush=True)
        try:
            interpreter = install(python, ROOT / f".venv-{version}")
        except subprocess.CalledProcessError as error:
            results[version] = f"not installed: {error}"
            continue
        pytest = [str(interpreter), "-m", "pytest", "tests", "-m", "not conformance and not browser and not cluster"]
        done = subprocess.run(pytest, cwd=ROOT, check=False)
        results[version] = "passed" if done.returncode == 0 else f"failed: pytest exited with {done.returncode}"

    for version, result in results.items():
        print(f"Python {version}: {result}")
    ran = [result for result in results.values() if result != "not found"]
    return 0 if ran and all(result == "passed" for result in ran) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
