"""Run targets of the Makefile at the same time: `python tools/side_by_side.py TARGET...`.

The output of the first one appears at once, that of the others when it has ended. The exit status is 1 if one has
failed. What the targets install must be there already, because two of them must not install it at once.

The first one has the processor first: its tests wait for servers and for time to pass, and the others run meanwhile.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NICENESS = "5"
"""Of all but the first. They get a quarter of what the first one gets where it wants all."""


def main(targets: list[str]) -> int:
    """Run the targets and print their outputs."""
    first, *others = targets
    started = []
    for target in others:
        output = tempfile.TemporaryFile()  # noqa: SIM115 - read at the end
        command = ["nice", "-n", NICENESS, *_make(target)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        started.append((target, process, output))
    try:
        failed = [first] if subprocess.run(_make(first), cwd=ROOT, check=False).returncode else []
        for target, process, output in started:
            status = process.wait()
            output.seek(0)
            print(f"--- make {target}", flush=True)
            # As it is: a failed test may print bytes that are no text.
            sys.stdout.buffer.write(output.read() + b"\n")
            sys.stdout.flush()
            failed += [target] if status else []
    finally:
        for _, process, output in started:
            process.terminate()
            output.close()
    for target in failed:
        print(f"make {target} failed", file=sys.stderr)
    return 1 if failed else 0


def _make(target: str) -> list[str]:
    return ["make", "--no-print-directory", target]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
