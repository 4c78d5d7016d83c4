"""Requests: the fields of a call, parsed at the door.

Owns which values a field may have. Whatever is wrong becomes a CallFailed with `bad_call` that names the method and the
field; past this door there are typed values only. Never touches a store.
"""

from collections.abc import Set
from typing import Any, Final, NoReturn

from ring.hashing import PART_POWER_MAX
from storage_node.keys import ACCOUNTS, CONTAINERS, Key, Listing
from storage_node.store import RowOffer
from swiftlike.entries import Entry, EntryDamaged, Version, decode
from swiftlike.limits import ITEMS_MAX, PAGE_ITEMS_MAX, PATH_BYTES_MAX, RPC_BODY_BYTES_MAX
from swiftlike.names import CONTAINER_BYTES_MAX, ROW_BYTES_MAX
from swiftlike.node_calls import OFFERS, VERSION_BYTES, Code, Query, decode_version, unpack_list
from swiftlike.rpc.errors import CallFailed
from swiftlike.rpc.service import Call
from swiftlike.timestamps import Ballot, Offer, Timestamp, WriteId

EPOCH_MAX: Final = 2**32 - 1
MICROS_MAX: Final = 2**63 - 1
ROW_SIZE_MAX: Final = 2**56
ROW_OBJECTS_MAX: Final = 2**44
"""Above what any container holds; so that the sums of a listing stay within 64 bits."""


_FIRST: Final = Offer.FIRST
_OFFER_TYPES: Final = ((bytes, bytes, bytes, str, int), (bytes, bytes, type(None), str, int))


class Fields:
    """The header of one call."""

    __slots__ = ("_call", "_header")

    def __init__(self, call: Call, known: Set[str]) -> None:
        """Take a call; `known` are the fields that its method has."""
        self._call = call
        self._header = call.header
        if not call.header.keys() <= known:
            strange = sorted(str(name)[:40] for name in call.header.keys() - known)
            self.refuse(f"field {strange[0]!r} is not known to this release: upgrade the older end")

    def refuse(self, reason: str) -> NoReturn:
        """Refuse the call as a mistake of its caller."""
        raise CallFailed(Code.BAD_CALL, f"{self._call.method}: {reason}")

    def octets(self, name: str, least: int, most: int, default: bytes | None = None) -> bytes:
        """Return a byte string of `least` to `most` bytes."""
        value = self._header.get(name, default)
        if type(value) is not bytes or not least <= len(value) <= most:
            self.refuse(f"field {name} must be {least} to {most} bytes")
        return value

    def number(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """Return a whole number in `[least, most]`."""
        value = self._header.get(name, default)
        if type(value) is not int or not least <= value <= most:
            self.refuse(f"field {name} must be a whole number from {least} to {most}")
        return value

    def flag(self, name: str) -> bool:
        """Return a truth value; absent means False."""
        value = self._header.get(name, False)
        if type(value) is not bool:
            self.refuse(f"field {name} must be true or false")
        return value

    def has(self, name: str) -> bool:
        """Say whether an optional field is there."""
        return name in self._header

    def table(self) -> bytes:
        """Return the table that the call is about; whether there is one, its ring says."""
        return self.octets("table", 2, 2)

    def path(self, table: bytes, name: str = "path") -> bytes:
        """Return a path of the shape that its table has."""
        path = self.octets(name, 1, PATH_BYTES_MAX)
        if not is_path(table, path):
            self.refuse(f"field {name} is no path of table {table!r}")
        return path

    def listing(self, table: bytes) -> Listing:
        """Return the listing under a container or an account."""
        if table not in (CONTAINERS, ACCOUNTS):
            self.refuse(f"nothing is listed under table {table!r}")
        incarnation = Timestamp(self.octets("incarnation", 16, 16, bytes(16)))
        return Listing(Key(table, self.path(table)), incarnation)

    def entry(self) -> Entry:
        """Return the entry that is offered."""
        return self.decode_entry(self._header.get("entry"))

    def decode_entry(self, raw: object) -> Entry:
        """Read an entry out of whatever came as one."""
        if type(raw) is not bytes:
            self.refuse("an entry must be bytes")
        try:
            return decode(raw)
        except EntryDamaged as error:
            self.refuse(f"no entry: {error}")

    def ballot(self) -> Ballot:
        """Return a ballot."""
        return Ballot(self.octets("ballot", 32, 32))

    def write_id(self, name: str) -> WriteId:
        """Return a write id."""
        return WriteId(self.octets(name, 16, 16))

    def offer(self) -> Offer:
        """Return in what circumstances something is offered."""
        value = self._header.get("offer")
        if value is None:
            return _FIRST
        found = OFFERS.get(value) if type(value) is str else None
        if found is None:
            self.refuse(f"field offer must be one of {', '.join(OFFERS)}")
        return found

    def text(self, name: str, choices: Set[str]) -> str:
        """Return one of some words."""
        value = self._header.get(name)
        if type(value) is not str or value not in choices:
            self.refuse(f"field {name} must be one of {', '.join(sorted(choices))}")
        return value

    def bits(self) -> int:
        """Return how many leading bits of the path hash are meant."""
        return self.number("bits", 0, PART_POWER_MAX)

    def query(self) -> Query:
        """Return which rows are asked for."""
        query = Query(
            prefix=self.octets("prefix", 0, ROW_BYTES_MAX, b""),
            marker=self.octets("marker", 0, ROW_BYTES_MAX, b""),
            end_marker=self.octets("end_marker", 0, ROW_BYTES_MAX, b""),
            delimiter=self.octets("delimiter", 0, ROW_BYTES_MAX, b""),
            reverse=self.flag("reverse"),
            limit=self.number("limit", 1, ITEMS_MAX, PAGE_ITEMS_MAX),
            tombstones=self.flag("tombstones"),
            now_us=self.number("now_us", 0, MICROS_MAX, 0),
            names_only=self.flag("names_only"),
        )
        if query.names_only and (query.tombstones or query.delimiter):
            self.refuse("names alone tell neither tombstones nor prefixes: ask without names_only")
        if query.tombstones and query.delimiter:
            self.refuse("tombstones cannot be rolled up: ask for them without a delimiter")
        if not _is_text(query.prefix):
            self.refuse("field prefix is not valid UTF-8")
        return query

    def items(self, wanted: tuple[type, ...]) -> list[tuple[Any, ...]]:
        """Return the list in the body, each item a tuple of values of these types."""
        try:
            found = unpack_list(self._call.body)
        except ValueError as error:
            self.refuse(f"the body is no list: {error}")
        for at, item in enumerate(found):
            if type(item) is not tuple or tuple(map(type, item)) != wanted:
                self.refuse(f"item {at} of the body must be {len(wanted)} values of the types of this call")
        return list(found)

    def rows(self, table: bytes) -> list[RowOffer]:
        """Return the rows in the body."""
        rows: list[RowOffer] = []
        for at, (parent, name, raw) in enumerate(self.items((bytes, bytes, bytes))):
            if not is_path(table, parent):
                self.refuse(f"item {at} names no parent of table {table!r}")
            if not 1 <= len(name) <= ROW_BYTES_MAX or not _is_text(name):
                self.refuse(f"item {at} has a name that is empty, too long or not UTF-8")
            entry = self.decode_entry(raw)
            if entry.size > ROW_SIZE_MAX or entry.objects > ROW_OBJECTS_MAX:
                self.refuse(f"item {at} counts more bytes or objects than a cluster holds")
            rows.append(RowOffer(Key(table, parent), name, entry))
        return rows

    def offers(self) -> list[tuple[Any, ...]]:
        """Return the offers in the body, each as (path, entry, body or None, circumstances, flags); only their types are checked."""
        try:
            found = unpack_list(self._call.body)
        except ValueError as error:
            self.refuse(f"the body is no list: {error}")
        for at, item in enumerate(found):
            if type(item) is not tuple or tuple(map(type, item)) not in _OFFER_TYPES:
                self.refuse(f"item {at} of the body must be the five values of an offer")
        return list(found)

    def debts(self, table: bytes) -> list[tuple[Key, Version]]:
        """Return the debts in the body."""
        debts: list[tuple[Key, Version]] = []
        for at, (path, version) in enumerate(self.items((bytes, bytes))):
            if not is_path(table, path) or len(version) != VERSION_BYTES:
                self.refuse(f"item {at} is no path of table {table!r} with a version")
            debts.append((Key(table, path), decode_version(version)))
        return debts


def parse_get(call: Call) -> tuple[bytes, int, bytes, int] | None:
    """Return table, epoch, path and inline_bytes of a `get`, each as `Fields` would, all in one pass.

    None: some field is absent or not as it must be, and `Fields` says which; half of all calls are of this method.
    """
    header = call.header
    try:
        table, epoch, path, inline_bytes = (
            header["table"],
            header["epoch"],
            header["path"],
            header["inline_bytes"],
        )
    except KeyError:
        return None
    if (
        len(header) == 4
        and type(table) is type(path) is bytes
        and type(epoch) is type(inline_bytes) is int
        and len(table) == 2
        and 1 <= epoch <= EPOCH_MAX
        and 0 <= inline_bytes <= RPC_BODY_BYTES_MAX
        and is_path(table, path)
    ):
        return table, epoch, path, inline_bytes
    return None


def is_path(table: bytes, path: bytes) -> bool:
    """Say whether a path has the parts that its table needs, within their lengths, each valid UTF-8.

    A part may begin with NUL (hidden names do), an account's and a container's hold none besides; the rest of an
    object's is its own business.
    """
    if len(path) > PATH_BYTES_MAX or not _is_text(path):
        return False
    account_stop = path.find(b"\0", 1)
    if table == ACCOUNTS:
        return account_stop < 0 and path not in (b"", b"\0") and len(path) <= CONTAINER_BYTES_MAX + 1
    if account_stop < 0:
        return False
    container_stop = path.find(b"\0", account_stop + 2)
    container = path[account_stop + 1 : container_stop if container_stop >= 0 else None]
    if container in (b"", b"\0") or len(container) > CONTAINER_BYTES_MAX + 1:
        return False
    if table == CONTAINERS:
        return container_stop < 0
    return 0 <= container_stop < len(path) - 1


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
