"""Limits that are lowered in simulated processes, so that what is rare in short runs happens in them.

A name that is not there any more is an error: nobody would notice that the simulation has stopped to reach what it was
lowered for.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .images import Process


def _run_until_killed(loop: asyncio.AbstractEventLoop) -> None:
    """Run the background loop. It ends with its process, whose end is a SystemExit in each of its threads."""
    loop.run_forever()


ALWAYS: list[tuple[str, str, Any]] = [
    ("runtime.batch_worker", "PREPARE_FROM_TASKS", 1),
    ("runtime.background", "_run_forever", _run_until_killed),
]
SMALL: list[tuple[str, str, Any]] = [
    ("engine.compaction_tracker", "COMPACT_AFTER_CHUNKS", 6),
    ("engine.compaction_tracker", "COMPACT_QUIET_AFTER_CHUNKS", 3),
    ("engine.compaction_tracker", "STAGE_FROM_CHUNKS_PER_SECOND", 3),
    ("store.upkeep.staged_chunks", "MAX_BLOCKS", 1),
]
HARSH: list[tuple[str, str, Any]] = [
    ("engine.compaction_tracker", "COMPACT_AFTER_CHUNKS", 4),
    ("engine.compaction_tracker", "COMPACT_QUIET_AFTER_CHUNKS", 2),
    ("engine.compaction_tracker", "QUIET_SECONDS", 0.3),
    ("engine.housekeeping_tasks", "COMPACTION_REST", 1.0),
    ("engine.housekeeping", "INTERVAL", 0.3),
]


def tune(process: Process, *, small: bool, is_harsh: bool) -> None:
    """Lower limits in a process. To be called by one of its threads.

    Args:
        small: also those from which on chunks are merged, or wait to be gathered.
        is_harsh: also those that keep merges rare.
    """
    for name, constant, value in ALWAYS + SMALL * small + HARSH * is_harsh:
        module = process.module(name)
        if not hasattr(module, constant):
            raise AttributeError(f"{name} has no {constant} any more: see what the simulation has it for.")
        setattr(module, constant, value)
