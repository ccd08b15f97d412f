"""What a simulated process still has in memory at rest, by the classes of its own copy of the package."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

from .images import PACKAGE, Process

ROOMS = ("api", "engine", "runtime", "server")
"""Where objects live that belong to a request, a reader or a wait."""

LOOPS = 2
"""Event loops of a process: its server's, and the background loop."""

FOR_EACH_LOOP = {
    **dict.fromkeys(
        [
            "engine.fan_out.FanOut",
            "engine.hub.Hub",
            "engine.numbers.HubNumbers",
            "engine.polling.PollSchedule",
            "runtime.log_once.LogOnce",
            "runtime.timeouts.Timeouts",
            "engine.wakeup.signing.MessageSigner",
            "engine.wakeup.subscriber.RedisSubscriber",
        ],
        1,
    ),
    "runtime.counting.Histogram": 2,  # the numbers of a hub have two
}
"""What an event loop has from its first live reader on, and the process where it is about all of them."""

WAITERS = 3
"""Threads of the lock wait queue, which start with the first operations that wait."""

FOR_EACH_WAITER = frozenset({"engine.committer.Applier", "runtime.connection.DedicatedConnection"})
"""What each of these threads has for as long as the process runs."""

LAST_ONES = frozenset({"runtime.monitor.Probe"})
"""What a process keeps the last one of."""

FOR_EACH_STREAM = frozenset({"engine.compaction_tracker._StreamGrowth"})
"""What a process has of a stream that it appended to until its chunks are merged, which waits after failures."""


_frozen: Counter[type] = Counter()


def freeze() -> None:
    """Have the garbage collector leave out all that there is. Here it counts still, also what ends later on."""
    gc.collect()
    _frozen.update(by_class())
    gc.freeze()


def by_class() -> Counter[type]:
    """Count the objects of all processes that are not frozen. There are a million: do it once for all processes."""
    return Counter(map(type, gc.get_objects()))


def objects(process: Process, counts: Counter[type]) -> Counter[str]:
    """Return the counts of a process, by class. Values do not count: caches of them are bounded."""
    kinds: dict[type, str] = {}
    for name, module in process.modules.items():
        if name.removeprefix(f"{PACKAGE}.").split(".")[0] in ROOMS:
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name and not issubclass(value, tuple):
                    kinds[value] = f"{name.removeprefix(f'{PACKAGE}.')}.{value.__name__}"
    result: Counter[str] = Counter()
    for kind, name in kinds.items():
        if count := counts[kind] + _frozen[kind]:
            result[name] += count
    return result


def left_over(process: Process, counts: Counter[type], unused: Counter[str], streams: int) -> Iterator[str]:
    """Yield what a process has kept that it should have let go of.

    Args:
        counts: of the objects of all processes.
        unused: the objects of a process that nobody has used.
        streams: how many streams there are, made anew at a path or not.
    """
    for name, count in objects(process, counts).items():
        if name in FOR_EACH_LOOP:
            more = LOOPS * FOR_EACH_LOOP[name]
        elif name in FOR_EACH_STREAM:
            more = streams
        else:
            more = WAITERS if name in FOR_EACH_WAITER else int(name in LAST_ONES)
        if count > unused[name] + more:
            yield f"{process} has {count} objects of {name} at rest, where a new process has {unused[name]}"
