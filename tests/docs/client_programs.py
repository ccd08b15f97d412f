"""The programs of docs/howto/clients.md: how each is built and started.

Two clients come from registries that every machine with this project's tools reaches. The others are built from a
checkout of the clients' repository, whose folder the variable CLIENTS_SOURCES names. Knows nothing of servers.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.browser.recipe_pages import PACKAGES
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "howto" / "clients.md"
SOURCES_VARIABLE = "CLIENTS_SOURCES"
# Compilers keep their results here between two runs.
CACHE = ROOT / "build" / "clients"
BUILD_SECONDS = 500

OLDEST_RUBY = (3, 2)
GO_MODULE = "github.com/durable-streams/durable-streams/packages/client-go"


class Program(NamedTuple):
    """How a program of the page becomes a command.

    fence: the language of its fenced code.
    file: the name of the file that holds it.
    tools: the commands that have to be on the machine.
    build: makes a folder that holds the file ready, with the clients' sources, and returns the command.
    from_sources: whether the client has to be built from its sources.
    """

    fence: str
    file: str
    tools: Sequence[str]
    build: Callable[[Path, Path], list[str]]
    from_sources: bool = True


def missing(program: Program) -> str:
    """What this machine lacks for a program, as a reason to skip it, or nothing."""
    if program.from_sources and SOURCES_VARIABLE not in os.environ:
        return f"{SOURCES_VARIABLE} does not name a checkout of durable-streams/durable-streams"
    lacking = [tool for tool in program.tools if shutil.which(tool) is None]
    if lacking:
        return f"{', '.join(lacking)} is not installed"
    if program.fence == "ruby" and (version := _ruby_version()) < OLDEST_RUBY:
        return f"Ruby {'.'.join(map(str, version))} is too old for the client"
    return ""


def prepare(program: Program, folder: Path, address: str) -> list[str]:
    """Write a program for a server's address ("host:port") into a folder, build it, and return the command."""
    (block,) = blocks(PAGE, program.fence)
    file = folder / program.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.text.replace("127.0.0.1:8000", address))
    return program.build(folder, Path(os.environ.get(SOURCES_VARIABLE, "")).resolve() / "packages")


def _ruby_version() -> tuple[int, ...]:
    done = subprocess.run(["ruby", "-e", "print RUBY_VERSION"], capture_output=True, text=True, timeout=60, check=True)
    return tuple(map(int, done.stdout.split(".")))


def _python(folder: Path, packages: Path) -> list[str]:
    return [sys.executable, "-u", "client.py"]


def _node(folder: Path, packages: Path) -> list[str]:
    (folder / "node_modules").symlink_to(PACKAGES)
    return ["node", "client.mjs"]


def _go(folder: Path, packages: Path) -> list[str]:
    requirement = f"require {GO_MODULE} v0.1.0\nreplace {GO_MODULE} => {packages / 'client-go'}\n"
    (folder / "go.mod").write_text(f"module clients\ngo 1.21\n{requirement}")
    _compile(folder, ["go", "build", "-o", "client", "."])
    return ["./client"]


def _rust(folder: Path, packages: Path) -> list[str]:
    (manifest,) = blocks(PAGE, "toml")
    # Without TLS, whose libraries take most of the time.
    local = f'path = "{packages / "client-rust"}", default-features = false, features = ["json"]'
    dependencies, replaced = re.subn(r'git = "[^"]+", rev = "[^"]+"', local, manifest.text)
    assert replaced == 1, "the client of Rust is not taken from its repository"
    package = '[package]\nname = "client"\nversion = "0.0.0"\nedition = "2021"\n'
    (folder / "Cargo.toml").write_text(package + dependencies)
    target = CACHE / "rust"
    target.mkdir(parents=True, exist_ok=True)
    if (locked := target / "Cargo.lock").exists():
        shutil.copy(locked, folder)
    _compile(folder, ["cargo", "build", "--quiet", "--target-dir", str(target)], CARGO_PROFILE_DEV_DEBUG="0")
    shutil.copy(folder / "Cargo.lock", locked)
    return [str(target / "debug" / "client")]


def _java(folder: Path, packages: Path) -> list[str]:
    sources = map(str, (packages / "client-java" / "src" / "main" / "java").rglob("*.java"))
    _compile(folder, ["javac", "-d", "classes", *sources, "Main.java"])
    return ["java", "-cp", "classes", "Main"]


def _ruby(folder: Path, packages: Path) -> list[str]:
    return ["ruby", "-I", str(packages / "client-rb" / "lib"), "-e", "$stdout.sync = true; load 'client.rb'"]


def _php(folder: Path, packages: Path) -> list[str]:
    sources = packages / "client-php" / "src"
    (folder / "vendor").mkdir()
    # As Composer would make it from the client's description of itself.
    (folder / "vendor" / "autoload.php").write_text(
        "<?php spl_autoload_register(function ($class) {\n"
        f"    $file = '{sources}/' . str_replace(['DurableStreams\\\\', '\\\\'], ['', '/'], $class) . '.php';\n"
        "    if (is_file($file)) { require $file; }\n"
        f"}});\nrequire '{sources}/functions.php';\n"
    )
    return ["php", "client.php"]


def _compile(folder: Path, command: list[str], **environment: str) -> None:
    """Run a compiler. It ends by itself, or is killed after BUILD_SECONDS."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr


PROGRAMS = {
    "TypeScript": Program("js", "client.mjs", ("node",), _node, from_sources=False),
    "Python": Program("python", "client.py", (), _python, from_sources=False),
    "Go": Program("go", "main.go", ("go",), _go),
    "Rust": Program("rust", "src/main.rs", ("cargo",), _rust),
    "Java": Program("java", "Main.java", ("javac", "java"), _java),
    "PHP": Program("php", "client.php", ("php",), _php),
    "Ruby": Program("ruby", "client.rb", ("ruby",), _ruby),
}
