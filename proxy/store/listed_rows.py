"""The rows of a page as what they list, made when they are looked at.

Owns what of a row a listing shows. Most pages are read for their names only, and an entry costs ten times what its name
does. Never asks anybody.
"""

from collections.abc import Iterator, Sequence
from typing import Final, overload

from proxy.store.values import ListedObject, ListedPrefix
from swiftlike.entries import EntryDamaged, described_of
from swiftlike.node_calls import NamedRows, Row


class ListedRows(Sequence[ListedObject | ListedPrefix]):
    """Objects and common prefixes of a page. Looking at a row raises EntryDamaged when it is none of ours."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[Row]) -> None:
        """Take the rows, in their order."""
        self._rows: Final = rows

    @property
    def names(self) -> list[bytes]:
        """Names and common prefixes."""
        rows = self._rows
        return list(rows.names) if isinstance(rows, NamedRows) else [row[0] for row in rows]

    def __len__(self) -> int:
        """Count them."""
        return len(self._rows)

    def __iter__(self) -> Iterator[ListedObject | ListedPrefix]:
        """Look at each."""
        return map(_listed, self._rows)

    @overload
    def __getitem__(self, at: int) -> ListedObject | ListedPrefix: ...

    @overload
    def __getitem__(self, at: slice) -> "ListedRows": ...

    def __getitem__(self, at: int | slice) -> "ListedObject | ListedPrefix | ListedRows":
        """Return one of them, or some."""
        return ListedRows(self._rows[at]) if isinstance(at, slice) else _listed(self._rows[at])


def _listed(row: Row) -> ListedObject | ListedPrefix:
    name, raw = row
    if raw is None:
        return ListedPrefix(name)
    # The frame that brought it had a checksum, and the device's index another one.
    modified, size, shown = described_of(raw)
    etag, content_type = shown.get("etag", ""), shown.get("type", "application/octet-stream")
    if not isinstance(etag, str) or not isinstance(content_type, str):
        raise EntryDamaged("the etag and the type of a row are texts")
    return ListedObject(name, size, etag, content_type, modified)
