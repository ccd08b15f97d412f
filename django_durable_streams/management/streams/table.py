"""The table of subcommands of `manage.py streams`, in the order in which `--help` lists them."""

from __future__ import annotations

from collections.abc import Sequence

from .append import Append
from .base import Subcommand
from .check_access import CheckAccess
from .close import Close
from .consumers import Pause, Replay, Resume
from .create import Create
from .delete import Delete
from .doctor import Doctor
from .export_streams import Export
from .fork import Fork
from .import_streams import Import
from .list_streams import ListStreams
from .new_identity import NewIdentity
from .prune import Prune
from .prune_answers import PruneAnswers
from .read import Read
from .set_streams import SetStreams
from .show import Show
from .stats import Stats
from .tail import TailStreams
from .trim import TrimStreams

SUBCOMMANDS: Sequence[Subcommand] = (
    ListStreams(),
    Show(),
    Create(),
    Append(),
    Read(),
    TailStreams(),
    Close(),
    SetStreams(),
    TrimStreams(),
    Fork(),
    Delete(),
    Stats(),
    Prune(),
    PruneAnswers(),
    Export(),
    Import(),
    NewIdentity(),
    Doctor(),
    CheckAccess(),
    Pause(),
    Resume(),
    Replay(),
)
