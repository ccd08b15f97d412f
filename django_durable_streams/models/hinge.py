"""The one way from the models up to the code that does their work. It is imported at the first call.

The methods of `Stream` are delegates, so that the tables stand below everything that uses them. Their types come from
here as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..api.tail import Page
    from ..api.writer import SyncWriter, Writer
    from ..api.writer_options import WriterOptions
    from ..store.operations import Appended

__all__ = ["Appended", "Page", "SyncWriter", "Writer", "WriterOptions", "api"]


def api() -> Any:
    """Return the module with the functions behind the methods of streams."""
    from ..api import stream_methods

    return stream_methods
