"""`make run` on odd machines: what it cannot use, it names, and it changes nothing of a run that goes on."""

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.servers import example_environment

SCRIPT = Path(__file__).resolve().parent.parent.parent / "tools" / "run_example.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(database: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = example_environment({"DATABASE_URL": f"sqlite:///{database}"})
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_second_run_at_the_same_port_changes_nothing(tmp_path: Path, host: str) -> None:
    """It changed the administrator's password, which the first run had printed, before it found the port taken."""
    database = tmp_path / "db.sqlite3"
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        done = run(database, "--port", str(port), "--host", host)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Nothing can listen on {host}, port {port}: ")
    assert "PORT=8001" in done.stderr
    assert "password" not in done.stdout
    assert not database.exists()


def test_a_database_that_cannot_be_used_is_named(tmp_path: Path, unused_port: int) -> None:
    text = tmp_path / "text.sqlite3"
    text.write_text("no database at all\n" * 100)
    for database in (tmp_path / "missing" / "db.sqlite3", text):
        done = run(database, "--port", str(unused_port))
        assert done.returncode == 1
        assert done.stderr.startswith(f"The database {database} cannot be used: ")
        assert done.stderr.count("\n") == 1


def test_the_password_and_the_sessions_outlive_a_restart(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADMIN_PASSWORD", raising=False)
    file = tmp_path / "password.txt"
    first = script.password_of_administrator(file)
    assert script.password_of_administrator(file) == first
    assert len(first) >= 12
    assert file.stat().st_mode & 0o077 == 0
    file.write_bytes(b"\xff\n")
    assert script.password_of_administrator(file) != first
    monkeypatch.setenv("ADMIN_PASSWORD", "from the environment")
    assert script.password_of_administrator(file) == "from the environment"


def test_a_password_that_cannot_be_kept_is_still_one(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ADMIN_PASSWORD", raising=False)
    file = tmp_path / "missing" / "password.txt"
    assert script.password_of_administrator(file) != script.password_of_administrator(file)
    assert str(file) in capsys.readouterr().err


def test_a_second_run_does_not_change_the_hash_of_the_password(tmp_path: Path) -> None:
    """Django ends the sessions of a user whose hash changes."""
    database = tmp_path / "db.sqlite3"
    hashes = {hash_after_preparing(database, password) for password in ("first", "first")}
    assert len(hashes) == 1
    assert hash_after_preparing(database, "second") not in hashes


def hash_after_preparing(database: Path, password: str) -> str:
    program = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import run_example; run_example.prepare();"
        "from django.contrib.auth.models import User; print(User.objects.get().password)"
    )
    environment = example_environment({"DATABASE_URL": f"sqlite:///{database}", "ADMIN_PASSWORD": password})
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "99999"], ["--port", "x"]])
def test_a_port_that_is_none_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path / "db.sqlite3", *arguments)
    assert (done.returncode, done.stdout) == (2, "")


def test_an_address_of_ipv6_has_brackets_in_urls(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(script.os, "environ", environment)
    assert [script.in_url(address) for address in ("::1", "127.0.0.1", "tea.local")] == [
        "[::1]",
        "127.0.0.1",
        "tea.local",
    ]
    script.open_to_others(script.in_url("fd00::2"), 8000)
    assert environment["PUBLIC_URL"] == "http://[fd00::2]:8000"
    assert environment["ALLOWED_HOSTS"].split(",")[-1] == "[fd00::2]"


def test_without_a_network_the_address_is_that_of_this_machine(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Offline(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError("Network is unreachable")

    monkeypatch.setattr(script.socket, "socket", Offline)
    assert [script.address_of(host) for host in ("0.0.0.0", "::", "10.0.0.7")] == ["127.0.0.1", "::1", "10.0.0.7"]
