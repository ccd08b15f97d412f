"""A simulated process: a copy of the package's modules of its own, and what it has started, opened and promised.

What is one for each process in the package (registries, locks, caches, listeners) is in its modules. So a process that
has modules of its own has all of that of its own too, without anything in the package that would know of it. Models and
what has no state are the same for all.
"""

from __future__ import annotations

import builtins
import datetime
import functools
import importlib
import importlib.util
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import django_durable_streams

from . import primitives
from .environment import OrderedSet, VirtualDatetime, importer, make_modules
from .mutations import Mutation
from .scheduler import Scheduler, Task

PACKAGE = "django_durable_streams"
ROOT = Path(django_durable_streams.__file__).parent
SHARED = ("models", "protocol", "migrations", "conf", "apps")
"""What all processes have in common: the tables, and what has no state."""
SERVED = ("access", "api", "engine", "runtime", "server", "store")
"""The packages whose modules nearly every process loads."""
LOADED = ("server.asgi", "server.uvicorn.fast_path", "permissions")
"""Modules that every process loads, with all that they import."""


def is_shared(name: str) -> bool:
    """Whether a module of the package is the same for all processes."""
    return name != PACKAGE and name.split(".")[1] in SHARED


class Images:
    """Loads the package's modules for processes, from its files.

    Args:
        mutations: changes to make in the text of some of them.
    """

    def __init__(self, mutations: Sequence[Mutation] = ()) -> None:
        self._mutations = mutations
        self._code: dict[str, CodeType] = {}
        self._environment = make_modules()
        self._builtins = {
            **vars(builtins),
            "set": OrderedSet,
            "__import__": importer(self._environment, builtins.__import__),
        }
        self._shared = {
            name: module for name, module in sys.modules.items() if name.startswith(f"{PACKAGE}.") and is_shared(name)
        }
        for name in SERVED:  # now, and not in the process of each seed
            for file in (ROOT / name).rglob("*.py"):
                self._compiled(str(file))
        self._ahead: deque[dict[str, ModuleType]] = deque()

    def load_ahead(self, count: int) -> None:
        """Load the modules of some processes now: the fork of each seed begins with them.

        To load them takes a quarter of a seed's time. No task runs yet, so they may not wait while they are loaded.
        """
        with self:
            for _ in range(count):
                process = Process(primitives.scheduler, "ahead", self._empty())
                process.enter()
                for name in LOADED:
                    process.module(name)
                self._ahead.append(process.modules)

    def new(self) -> dict[str, ModuleType]:
        """Return the modules with which a process begins."""
        return self._ahead.popleft() if self._ahead else self._empty()

    def _empty(self) -> dict[str, ModuleType]:
        root = ModuleType(PACKAGE)
        root.__path__ = [str(ROOT)]
        root.__file__ = str(ROOT / "__init__.py")
        root.__spec__ = ModuleSpec(PACKAGE, None, is_package=True)
        return {PACKAGE: root, **self._shared}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find a module of the package for the process that runs (see `sys.meta_path`)."""
        if not name.startswith(f"{PACKAGE}.") or is_shared(name):
            return None
        origin = _origin(name)
        if origin is None:
            return None
        is_package = origin.endswith("__init__.py")
        spec = ModuleSpec(name, self, origin=origin, is_package=is_package)  # type: ignore[arg-type]
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(origin)]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave that to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute a module (see `importlib.abc.Loader`)."""
        assert module.__spec__ is not None
        origin = module.__file__ = module.__spec__.origin
        assert origin is not None
        module.__dict__["__builtins__"] = self._builtins
        assert Process.running is not None
        Process.running.modules[module.__name__] = module
        exec(self._compiled(origin), module.__dict__)

    def _compiled(self, origin: str) -> CodeType:
        code = self._code.get(origin)
        if code is None:
            name = str(Path(origin).relative_to(ROOT))
            mutations = [mutation for mutation in self._mutations if mutation.module == name]
            code = self._code[origin] = _mutated(origin, name, mutations) if mutations else _read(origin)
        return code

    def __enter__(self) -> None:
        """Have the modules of the package come from here."""
        self._before = {name: module for name, module in sys.modules.items() if _is_ours(name)}
        sys.meta_path.insert(0, self)
        self._set_clocks(time, datetime.datetime, self._environment["time"], VirtualDatetime)

    def __exit__(self, *args: object) -> None:
        self._set_clocks(self._environment["time"], VirtualDatetime, time, datetime.datetime)
        sys.meta_path.remove(self)
        Process.running = None
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(self._before)

    def _set_clocks(self, old_time: object, old_datetime: object, new_time: object, new_datetime: object) -> None:
        """Have the modules that all processes share tell the time of the run too."""
        for module in self._before.values():
            for name, value in vars(module).items():
                if value is old_time or value is old_datetime:
                    setattr(module, name, new_time if value is old_time else new_datetime)


def _mutated(origin: str, name: str, mutations: Sequence[Mutation]) -> CodeType:
    text = Path(origin).read_text()
    for mutation in mutations:
        text = mutation.applied(name, text)
    return compile(text, origin, "exec")


def _read(origin: str) -> CodeType:
    """Return the code of a module as Python keeps it: to compile all of them takes half a second."""
    code = SourceFileLoader(PACKAGE, origin).get_code(PACKAGE)
    assert code is not None
    return code


@functools.cache
def _origin(name: str) -> str | None:
    """Return the file of a module of the package: each process asks for two hundred."""
    file = ROOT.joinpath(*name.split(".")[1:])
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    return str(file) if file.exists() else None


def _is_ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


class Process:
    """A simulated process.

    Args:
        modules: with which it begins.
    """

    running: Process | None = None
    """The one whose modules are those that are imported."""

    def __init__(self, scheduler: Scheduler, name: str, modules: dict[str, ModuleType]) -> None:
        self.name = name
        self.is_dead = False
        self.tasks: dict[int, Task] = {}
        self.connections: dict[Any, Task | None] = {}
        """Of the database, and whose each is."""
        self.at_kill: list[Callable[[], object]] = []
        self._scheduler = scheduler
        self.modules = modules

    def __repr__(self) -> str:
        return self.name

    def spawn(self, function: Callable[[], object], name: str) -> Task:
        """Start a thread."""
        task = self._scheduler.spawn(self, function, name)
        self.tasks[task.number] = task
        return task

    def thread_ends(self, task: Task) -> None:
        """A thread of it has ended: the connections that it leaves behind end with it."""
        self.tasks.pop(task.number, None)
        if not self.is_dead:
            for connection in [connection for connection, owner in self.connections.items() if owner is task]:
                connection.end()

    def enter(self) -> None:
        """Have its modules be those that are imported."""
        before = Process.running
        if before is self:
            return
        modules = sys.modules
        others = before.modules.keys() if before is not None else {name for name in modules if _is_ours(name)}
        for name in others - self.modules.keys():
            modules.pop(name, None)
        modules.update(self.modules)
        Process.running = self

    def kill(self) -> None:
        """End it at once: nothing more is done by any of its threads, and its transactions are rolled back."""
        self.is_dead = True
        for connection in self.connections:
            # First of all: what its threads leave on their way out may commit, as Django's driver does by itself.
            connection.undo()
        self._scheduler.kill(self.tasks.values())
        for connection in list(self.connections):
            connection.end()
        for each in self.at_kill:
            each()

    def module(self, name: str) -> ModuleType:
        """Return one of its modules. To be called by one of its threads."""
        return importlib.import_module(f"{PACKAGE}.{name}")


class Bystanders(Process):
    """What runs beside the simulated processes: clients, and who watches. It imports nothing that is not shared.

    Every other switch of threads leads there or back, so the modules of whoever ran last stay where they are.
    """

    def enter(self) -> None:
        """Leave modules as they are."""
