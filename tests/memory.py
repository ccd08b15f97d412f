"""A folder in memory for the databases of tests.

SQLite waits for the disk when a connection ends and, in servers with the settings of the example project, at each
commit: for most of the time of many tests. PostgreSQL makes and removes hundreds of files for each database, and
MariaDB waits for the disk when it makes a table. The options of the databases stay as they are. Only the end of the
system would lose what is in memory, and no test ends the system.
"""

import shutil
from contextlib import suppress
from pathlib import Path

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 << 30
"""The bytes that it must have left. Containers often give it 64 MiB."""


def folder_in_memory() -> Path | None:
    """Return the folder, or None where there is none with enough space."""
    with suppress(OSError):
        if shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
            return MEMORY
    return None
