"""What the commands say of the project's own rows that refer to the streams of a deletion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...store.upkeep.related_rows import Preview, Protected, RowCounts
from .base import counted


class RowChanges(NamedTuple):
    """The rows of the project that follow streams, and the streams that other rows keep."""

    rows: RowCounts
    protected: Protected
    is_complete: bool = True
    """Whether the bounds of a preview have left out nothing."""

    @classmethod
    def of(cls, preview: Preview) -> RowChanges:
        """Return the changes that a deletion would make."""
        return cls(preview.rows, preview.protected, preview.is_complete)

    @property
    def protecting(self) -> list[str]:
        """The labels of the models whose rows keep streams."""
        return sorted({label for labels in self.protected.values() for label in labels})

    def values(self) -> dict[str, object]:
        """Return the values of a line of JSON."""
        return {
            "protected": len(self.protected),
            "protected_by": self.protecting,
            "deleted_rows": dict(self.rows.deleted),
            "changed_rows": dict(self.rows.changed),
            "all_rows_counted": self.is_complete,
        }

    def sentences(self, *, dry_run: bool) -> Iterator[str]:
        """Yield a sentence on the protected streams, and one for each model whose rows follow their streams."""
        at_least = "" if self.is_complete else "At least "
        if self.protected:
            is_one = len(self.protected) == 1
            are = "would be" if dry_run else "is" if is_one else "are"
            rows = " and ".join(self.protecting)
            because = f"rows of {rows} protect" if rows else "other rows refer to"
            them = "it" if is_one else "them"
            yield f"{at_least}{counted(len(self.protected), 'stream')} {are} left, because {because} {them}."
        for counts, deeds in (
            (self.rows.deleted, ("deleted with its stream", "deleted with their streams")),
            (self.rows.changed, ("changed, as its on_delete says", "changed, as their on_delete says")),
        ):
            for label, count in sorted(counts.items()):
                was = "would be" if dry_run else "was" if count == 1 else "were"
                yield f"{at_least}{counted(count, 'row')} of {label} {was} {deeds[count != 1]}."
        if not (self.is_complete or self.rows.deleted or self.rows.changed):
            yield "The rows of the project that refer to them are too many to count."
