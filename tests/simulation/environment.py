"""What a simulated process gets when it imports a module of the standard library, or a driver, that would wait."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import datetime
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, MutableSet
from types import ModuleType
from typing import Any

import redis
import redis.asyncio

from . import primitives
from .broker import AsyncClient, Client
from .loops import SimulatedLoop
from .sqlite import SimulatedCursor


class Facade(ModuleType):
    """A module that is another one but for some names.

    Args:
        real: what it stands for.
        names: what is different; None: not there, and an error where it is used.
    """

    def __init__(self, real: ModuleType, **names: Any) -> None:
        super().__init__(real.__name__)
        self._real = real
        self.__path__: list[str] = []
        self.__dict__.update({name: value for name, value in names.items() if value is not None})
        self._missing = {name for name, value in names.items() if value is None}

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise NotImplementedError(f"The simulation has no {self.__name__}.{name} yet.")
        return getattr(self._real, name)


class OrderedSet(MutableSet[Any]):
    """A set whose order is that in which things came: that of a real one depends on where they lie in memory."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._items = dict.fromkeys(items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"OrderedSet({list(self._items)})"

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def add(self, item: Any) -> None:
        self._items[item] = None

    def discard(self, item: Any) -> None:
        self._items.pop(item, None)

    def remove(self, item: Any) -> None:
        del self._items[item]

    def clear(self) -> None:
        self._items.clear()

    def copy(self) -> OrderedSet:
        return OrderedSet(self._items)

    def update(self, *others: Iterable[Any]) -> None:
        for other in others:
            self._items.update(dict.fromkeys(other))

    def union(self, *others: Iterable[Any]) -> OrderedSet:
        result = self.copy()
        result.update(*others)
        return result

    def difference_update(self, *others: Iterable[Any]) -> None:
        for other in others:
            for item in list(other):
                self._items.pop(item, None)

    def difference(self, *others: Iterable[Any]) -> OrderedSet:
        result = self.copy()
        result.difference_update(*others)
        return result

    def intersection(self, other: Iterable[Any]) -> OrderedSet:
        wanted = set(other)
        return OrderedSet(item for item in self._items if item in wanted)

    def issuperset(self, other: Iterable[Any]) -> bool:
        return all(item in self._items for item in other)

    def issubset(self, other: Iterable[Any]) -> bool:
        wanted = set(other)
        return all(item in wanted for item in self._items)


def _new_loop() -> asyncio.AbstractEventLoop:
    return SimulatedLoop(primitives.scheduler)


class _NoExecutor:
    """Stands for an executor where one may be named, and none is made: for bodies that are larger than those here."""

    def __init__(self, *args: object, **options: object) -> None:
        raise NotImplementedError("The simulation has no executors.")


def _nothing(*args: Any, **kwargs: Any) -> Any:
    """Stand for what is for the real process only."""
    return args[0] if args else None


def _monotonic() -> float:
    return primitives.scheduler.now


def _wall() -> float:
    return primitives.scheduler.now + primitives.scheduler.skew


class _AnyDatetime(type):
    """Has every datetime count as one of the class below."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime.datetime)


class VirtualDatetime(datetime.datetime, metaclass=_AnyDatetime):
    """datetime.datetime, but that it is now when the run has it. All that it makes are plain ones."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        return datetime.datetime(*args, **options)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return datetime.datetime.fromtimestamp(_wall(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime.UTC).replace(tzinfo=None)


class _NoMainThread:
    """No thread of a simulated process is the one that may handle signals."""

    name = "MainThread"
    ident = None

    def is_alive(self) -> bool:
        """Return True: no simulated process ends but by a kill."""
        return True


class _CurrentThread:
    """What a thread is told of itself."""

    daemon = True

    def __init__(self) -> None:
        task = primitives.scheduler.current
        self.name = task.name if task is not None else "outside"
        self.ident = primitives.get_ident()


def _threading() -> dict[str, Any]:
    return {
        "Thread": primitives.Thread,
        "Timer": primitives.Timer,
        "Lock": primitives.Lock,
        "RLock": primitives.RLock,
        "Condition": primitives.Condition,
        "Event": primitives.Event,
        "get_ident": primitives.get_ident,
        "current_thread": _CurrentThread,
        "main_thread": _NoMainThread,
        "Semaphore": None,
        "BoundedSemaphore": None,
        "Barrier": None,
    }


def make_modules() -> dict[str, ModuleType]:
    """Return the modules by name."""
    threads = Facade(threading, **_threading())
    asynchronous = Facade(redis.asyncio, Redis=AsyncClient)
    result = [
        threads,
        Facade(queue, SimpleQueue=primitives.SimpleQueue, Queue=primitives.SimpleQueue, LifoQueue=None),
        Facade(
            time,
            monotonic=_monotonic,
            perf_counter=_monotonic,
            time=_wall,
            sleep=primitives.sleep,
            monotonic_ns=lambda: int(_monotonic() * 1e9),
            time_ns=lambda: int(_wall() * 1e9),
        ),
        Facade(datetime, datetime=VirtualDatetime),
        Facade(asyncio, new_event_loop=_new_loop, run=None),
        Facade(concurrent.futures, ThreadPoolExecutor=_NoExecutor, ProcessPoolExecutor=None),
        # Each would keep a process's modules for ever.
        Facade(atexit, register=_nothing, unregister=_nothing),
        Facade(os, register_at_fork=_nothing),
        Facade(sqlite3, Cursor=SimulatedCursor),
        Facade(redis, Redis=Client, asyncio=asynchronous),
        asynchronous,
    ]
    # Futures of the standard library that a thread waits for.
    concurrent.futures._base.threading = threads  # type: ignore[attr-defined]
    return {module.__name__: module for module in result}


def importer(modules: dict[str, ModuleType], real: Callable[..., Any]) -> Callable[..., Any]:
    """Return an `__import__` that gives these modules."""

    def find(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level == 0:
            if not fromlist and (top := name.partition(".")[0]) in modules:
                return modules[top]
            if name in modules:
                return modules[name]
        return real(name, globals, locals, fromlist, level)

    return find
