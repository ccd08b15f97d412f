"""All statements of a database, as MySQL and MariaDB have them. SQLite and PostgreSQL derive their own."""

from __future__ import annotations

from .chunk_statements import ChunkStatements
from .link_statements import LinkStatements
from .stream_statements import StreamStatements


class Statements(StreamStatements, ChunkStatements, LinkStatements):
    """SQL for one database alias."""
