"""Dies at every step of writing: run as `python -m tests.cluster.crashing` with the example project's environment.

For each operation and each step of it (before and after each statement and each commit) a process is forked that does
the operation through the engine and ends, without a goodbye, at that step. Another one then does the operation again,
as a client does that got no answer. What the database holds after each of the two is printed as a line of JSON.
"""

import asyncio
import gc
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import django

django.setup()

from django.db import connections  # noqa: E402
from django.db.backends.base.base import BaseDatabaseWrapper  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402

from django_durable_streams.api import transactions  # noqa: E402
from django_durable_streams.engine import engine_for  # noqa: E402
from django_durable_streams.models import Producer, Stream  # noqa: E402
from django_durable_streams.protocol.errors import DurableStreamsError  # noqa: E402
from django_durable_streams.protocol.offsets import Sentinel  # noqa: E402
from django_durable_streams.protocol.producers import ProducerClaim  # noqa: E402
from django_durable_streams.runtime import lifecycle  # noqa: E402
from django_durable_streams.store.operations import Append, Create, Delete, Fork, Operation  # noqa: E402

TEXT = "text/plain"
WRITER = "durable-streams-write"
"""How the names of the threads begin whose steps count."""
MAX_STEPS = 100
CRASHED = 7


def append(path: str, data: bytes, seq: int, *, close: bool = False) -> Append:
    return Append(path, TEXT, data, close, producer=ProducerClaim("p", 0, seq))


# Each has the paths that it may change, and is done as one batch.
OPERATIONS: dict[str, Callable[[str], list[Operation]]] = {
    "append": lambda at: [append(f"{at}/a", b"two\n", 1)],
    "batch": lambda at: [append(f"{at}/{name}", b"two\n", 1) for name in ("a", "b")],
    "close": lambda at: [append(f"{at}/a", b"last\n", 1, close=True)],
    "delete": lambda at: [Delete(f"{at}/b")],
    "soft-delete": lambda at: [Delete(f"{at}/a")],
    "create": lambda at: [Create(f"{at}/new", TEXT, data=b"new\n")],
    "fork": lambda at: [Create(f"{at}/new", None, data=b"more\n", fork=Fork(f"{at}/b"))],
}
NAMES = ("a", "b", "child", "new")


def prepare(at: str) -> None:
    """Two streams with an append each, and a fork of the first."""
    for name in ("a", "b"):
        transactions.apply(Create(f"{at}/{name}", TEXT), "default")
        transactions.apply(append(f"{at}/{name}", b"one\n", 0), "default")
    transactions.apply(Create(f"{at}/child", None, fork=Fork(f"{at}/a")), "default")


def state(at: str) -> dict[str, Any]:
    """What the database holds."""
    outcome: dict[str, Any] = {}
    for name in NAMES:
        path = f"{at}/{name}"
        try:
            info = transactions.find(path, "default")
        except DurableStreamsError as error:
            outcome[name] = error.status
            continue
        pages = transactions.pages(path, info.id, Sentinel.START, "default", 1 << 20)
        data = "".join(message for page in pages for message in page.messages)
        producers = Producer.objects.filter(stream_id=info.id).values_list("producer_id", "epoch", "seq")
        outcome[name] = [info.tail, info.closed, data, list(producers)]
    outcome["rows"] = Stream.objects.filter(path__startswith=f"{at}/").count()
    return outcome


def connection_is_postgresql() -> bool:
    return connections["default"].vendor == "postgresql"


class Trap:
    """Ends the process at a step of the writing threads."""

    def __init__(self, step: int) -> None:
        self._left = step
        connection_created.connect(self._watch, weak=False)
        commit = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]

        def trapped(connection: BaseDatabaseWrapper) -> None:
            self._step("before a commit")
            commit(connection)
            self._step("after a commit")

        BaseDatabaseWrapper._commit = trapped  # type: ignore[attr-defined]
        if connection_is_postgresql():
            self._trap_pipelines()

    def _trap_pipelines(self) -> None:
        """The hot path's statements pass by Django's cursors there, and travel together. Here they go one by one."""
        from django_durable_streams.store.sql import pipeline

        exchange = pipeline._exchange

        def trapped(connection: Any, sent: Sequence[pipeline.Statement]) -> list[Any]:
            results = []
            for statement in sent:
                (result,) = self._execute(
                    lambda *_, one=statement: exchange(connection, [one]), statement.sql.decode(), None, False, None
                )
                results.append(result)
            return results

        pipeline._exchange = trapped  # type: ignore[assignment]

    def _watch(self, connection: BaseDatabaseWrapper, **kwargs: object) -> None:
        connection.execute_wrappers.append(self._execute)

    def _execute(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        place = "a commit" if sql == "COMMIT" else sql[:60]
        self._step(f"before {place}")
        result = execute(sql, params, many, context)
        self._step(f"after {place}")
        return result

    def _step(self, name: str) -> None:
        if not threading.current_thread().name.startswith(WRITER):
            return
        self._left -= 1
        if self._left == 0:
            os.write(1, f"{name}\n".encode())
            os._exit(CRASHED)


async def perform(operations: list[Operation]) -> list[int]:
    """Do operations as one batch, and return what a client would be told."""
    engine = engine_for()
    answers = await asyncio.gather(*(engine.write(operation) for operation in operations), return_exceptions=True)
    return [answer.status if isinstance(answer, DurableStreamsError) else 200 for answer in answers]


def in_child(operations: list[Operation], step: int) -> tuple[str, list[int] | None]:
    """Do operations in a forked process, up to a step. Returns that step's name, and the answers if any came."""
    connections.close_all()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(writing, 1)
        if step:
            Trap(step)
        os.write(1, json.dumps(asyncio.run(perform(operations))).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        said = answers.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == CRASHED:
        return said.strip(), None
    assert status == 0, f"the process ended with {status}: {said}"
    return "the end", json.loads(said)


def main() -> int:
    # A child would copy the memory of all that the garbage collector looks through.
    gc.disable()
    gc.freeze()
    # What delivers to subscribers has no part in a step. Half of a child's work would be its start.
    lifecycle._start_functions.clear()
    for name, make in OPERATIONS.items():
        for step in range(1, MAX_STEPS):
            at = f"{name}-{step}"
            prepare(at)
            before = state(at)
            place, answers = in_child(make(at), step)
            crashed = state(at)
            _, again = in_child(make(at), 0)
            line = {"operation": name, "place": place, "answers": answers, "before": before, "crashed": crashed}
            print(json.dumps({**line, "again": again, "repeated": state(at)}), flush=True)
            if answers is not None:
                break
    return 0


if __name__ == "__main__":
    sys.exit(main())
