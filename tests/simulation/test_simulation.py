"""Random programs under faults: SIMULATION_SEEDS of them, or SIMULATION_SEED alone with its whole history."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .mutations import MUTATIONS

ROOT = Path(__file__).parents[2]
STRESS = bool(os.environ.get("STRESS"))
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "1000" if STRESS else "100"))
PART = 50
"""Seeds of one run, which takes two seconds to prepare."""

WORKERS = min(os.cpu_count() or 1, 4)
SECONDS = 1800 if STRESS else 600
"""For one part, or until a fault is found, on a machine that has much else to do."""

pytestmark = pytest.mark.simulation


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run seeds in a process of their own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def digest(output: str) -> list[str]:
    """Return the history and what the run came to, without the line that says how long it took."""
    return output.splitlines()[:-1]


@pytest.mark.skipif("SIMULATION_SEED" in os.environ, reason="one seed is asked for")
def test_what_is_acknowledged_is_there_once_and_in_order_and_no_reader_skips() -> None:
    parts = [f"{first}:{min(first + PART, SEEDS)}" for first in range(0, SEEDS, PART)]
    with ThreadPoolExecutor(WORKERS) as pool:
        for done in pool.map(lambda part: simulate("--seeds", part), parts):
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif("SIMULATION_SEED" not in os.environ, reason="no seed is asked for")
def test_one_seed() -> None:
    done = simulate("--seed", os.environ["SIMULATION_SEED"], "--trace")
    print(done.stdout)
    assert done.returncode == 0, done.stderr


def test_a_seed_is_the_same_run_each_time() -> None:
    first, second = (simulate("--seeds", "0:3", "--trace", "--keep-going") for _ in range(2))
    alone = simulate("--seed", "2", "--trace")
    assert digest(first.stdout) == digest(second.stdout)
    assert digest(alone.stdout) == digest(first.stdout)[-len(digest(alone.stdout)) :]


@pytest.mark.parametrize("mutation", MUTATIONS if STRESS else list(MUTATIONS)[:1])
def test_a_fault_that_is_put_back_is_found(mutation: str) -> None:
    first = MUTATIONS[mutation].seed
    done = simulate("--seeds", f"{first}:{first + 1000}", "--mutation", mutation)
    assert done.returncode == 1, f"{MUTATIONS[mutation].why}\n{done.stdout}{done.stderr}"
    assert f"--mutation {mutation}" in done.stdout, done.stderr
