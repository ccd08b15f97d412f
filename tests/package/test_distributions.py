"""The wheel and the source distribution: what is inside, their description, and their use in an empty project."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.package

SETTINGS = """
INSTALLED_APPS += ["channels", "django_durable_streams", "django_durable_streams.contrib.ai"]
DATABASES["default"]["OPTIONS"] = {
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DURABLE_STREAMS = {"PERMISSION_CLASSES": "django_durable_streams.permissions.AllowAll"}
"""

URLS = """
from django.urls import include
urlpatterns.append(path("streams/", include("django_durable_streams.urls")))
"""


def run(*command: object, cwd: Path, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DJANGO_SETTINGS_MODULE")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: Any) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it as installers do."""
    folder: Path = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (source,) = folder.glob("*.tar.gz")
    run("tar", "-xzf", source, cwd=folder)
    unpacked = folder / source.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


def package_files() -> set[str]:
    """Return the files of the package that Git has, or would take."""
    listed = ["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "django_durable_streams"]
    names = run("git", *listed, cwd=ROOT).splitlines()
    return {name for name in names if (ROOT / name).exists()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")
def test_the_distributions_have_all_files_of_the_package(distributions: tuple[Path, Path]) -> None:
    source, wheel = distributions
    wanted = package_files()
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    assert {name for name in in_wheel if ".dist-info/" not in name} == wanted
    with tarfile.open(source) as archive:
        in_source = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert wanted | {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "docs/README.md"} <= in_source
    kinds = {Path(name).suffix for name in wanted}
    assert {".py", ".html", ".css", ".js", ".po", ".mo", ".typed"} <= kinds


def test_the_index_accepts_the_description(distributions: tuple[Path, Path]) -> None:
    run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *distributions, cwd=ROOT)


def test_the_wheel_works_in_an_empty_project(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    _, wheel = distributions
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    install = ["-m", "pip", "--python", python, "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt"]
    run(sys.executable, *install, wheel, cwd=tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    run(python, "-m", "django", "startproject", "mysite", project, cwd=tmp_path)
    for name, text in (("settings", SETTINGS), ("urls", URLS)):
        with (project / "mysite" / f"{name}.py").open("a") as file:
            file.write(text)
    script = shutil.copy(Path(__file__).with_name("try_wheel.py"), project)
    output = run(python, script, cwd=project, DJANGO_SETTINGS_MODULE="mysite.settings")
    assert output.splitlines()[-1] == "works"
