"""How many examples hypothesis tries: fewer in `make check` and on databases that are slower than SQLite, and more in
`make stress`.
"""

import os


def enough(count: int) -> int:
    """Return how many examples to try in this run, where `count` are enough for a check of every change."""
    if os.environ.get("STRESS", "") not in ("", "0"):
        return 10 * count
    is_quick = bool(os.environ.get("DATABASE_URL") or os.environ.get("QUICK"))
    return max(count // 4, 10) if is_quick else count
