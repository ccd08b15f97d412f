"""Run seeds: `python -m tests.simulation --seed 17`, `--seeds 0:1000`, `--mutation NAME`, `--harsh`, `--trace`."""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import Outcome


MOST_AHEAD = 14
"""Processes whose modules are loaded once for all seeds. Most seeds start two to five, and few start more than this."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--seeds", default="0:100", help="from:to, without the last one")
    parser.add_argument("--mutation", help="a fault to put back")
    parser.add_argument("--harsh", action="store_true", help="kill processes all the time, in the middle of merges")
    parser.add_argument("--trace", action="store_true", help="print the history in any case")
    parser.add_argument("--ignore", default="(?!)", help="a pattern of faults that are known")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first seed that fails")
    parser.add_argument("--verbose", action="store_true", help="say how long each seed takes")
    options = parser.parse_args(arguments)
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a set of strings would be another one each time.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *arguments],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    first, _, last = options.seeds.partition(":")
    seeds = [options.seed] if options.seed is not None else range(int(first), int(last))
    failed = 0
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        run = _prepare(Path(directory), len(seeds), options.mutation, harsh=options.harsh)
        began = time.monotonic()
        steps = 0
        for seed in seeds:
            outcome = run(seed)
            steps += outcome.steps
            outcome.faults = [fault for fault in outcome.faults if not re.search(options.ignore, fault)]
            if options.verbose:
                print(
                    f"{seed}: {outcome.steps} steps, {outcome.seconds:.0f} s, at {time.monotonic() - began:.1f} s",
                    flush=True,
                )
            if options.trace or outcome.faults:
                _print(outcome, options.mutation, harsh=options.harsh)
            if outcome.faults:
                failed += 1
                if not options.keep_going:
                    break
        seconds = time.monotonic() - began
    print(f"{seed - seeds[0] + 1} seeds, {failed} failed, {steps} steps, {seconds:.1f} s")
    return 1 if failed else 0


def _memory() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def _ignore_remains(unraisable: Any) -> None:
    """Say nothing of coroutines of dead processes, which cannot finish."""
    if not isinstance(unraisable.exc_value, RuntimeError | SystemExit):
        sys.__unraisablehook__(unraisable)


def _prepare(directory: Path, seeds: int, mutation: str | None, *, harsh: bool) -> Any:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.simulation.settings"
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    database = None
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        database = directory / "empty.sqlite3"
        settings.DATABASES["default"]["NAME"] = str(database)
    import random

    from . import compiling, primitives, remote
    from .scheduler import Scheduler

    primitives.use(Scheduler(random.Random(0), 0.0))
    call_command("migrate", verbosity=0)
    from django.db import connections

    connections.close_all()
    remote.install()
    compiling.install()
    sys.unraisablehook = _ignore_remains
    from .images import Images
    from .memory import freeze
    from .mutations import MUTATIONS
    from .program import Program
    from .world import World

    images = Images([MUTATIONS[mutation]] if mutation else [])
    images.load_ahead(min(3 * seeds, MOST_AHEAD))
    freeze()
    gc.disable()

    def run(seed: int) -> Outcome:
        program = Program.of(seed)
        return World(program.harsh() if harsh else program, images, database).run()

    return lambda seed: _apart(run, seed)


def _apart(run: Callable[[int], Outcome], seed: int) -> Outcome:
    """Run a seed in a fork of this process: what it leaves behind, half a million objects, ends with it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            with open(writer, "wb") as file:
                pickle.dump(run(seed), file)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"the process of seed {seed} ended with {os.waitstatus_to_exitcode(status)}")
    return pickle.loads(data)


def _print(outcome: Outcome, mutation: str | None, *, harsh: bool) -> None:
    print("=" * 100)
    print(outcome.program)
    print(*outcome.lines, sep="\n")
    print(f"{len(outcome.faults)} faults in {outcome.seconds:.1f} virtual seconds, {outcome.digest:x}:")
    for fault in outcome.faults:
        print(f"  - {fault}")
    again = f" --mutation {mutation}" * bool(mutation) + " --harsh" * harsh
    print(f"again: python -m tests.simulation --seed {outcome.program.seed}{again}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
