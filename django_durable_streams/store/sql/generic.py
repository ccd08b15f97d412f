"""All statements of a database, as MySQL and MariaDB have them. SQLite and PostgreSQL derive their own."""

from __future__ import annotations

from .chunk_statements import ChunkStatements
from .stream_statements import StreamStatements


class Statements(StreamStatements, ChunkStatements):
    """SQL for one database alias."""
