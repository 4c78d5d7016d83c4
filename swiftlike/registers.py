"""Registers: what one owner remembers of a key, and what can be concluded from it.

Owns the byte layout, the same in an index and in the answer to a prepare. Never decides what an owner accepts: its
acceptor does.

    register, version 1, big-endian:  offset  size  field
                                           0     1  version = 1
                                           1     1  flags: bit 0 has an entry, bit 1 has a promise, bit 2 it is closing,
                                                    bit 3 memory has a lower bound
                                           2     1  count of replaced entries
                                           3     1  zero
                                           4     4  entry_bytes
                                           8     8  since_us, if flagged, else zero
                                                32  promised ballot, if flagged
                                             97 ×   replaced, newest first: flags (bit 0 live, bit 1 whole, bit 2 has a
                                                    base), write id, ballot, base write id, base ballot
                                                    entry
"""

from struct import Struct
from typing import Final, NamedTuple

from swiftlike.entries import Entry, EntryDamaged, Version, decode_trusted, encode
from swiftlike.timestamps import NO_WRITE, ZERO_BALLOT, Ballot, WriteId

_FIXED: Final = Struct(">BBBxIQ")
_REPLACED: Final = Struct(">B16s32s16s32s")
assert (_FIXED.size, _REPLACED.size) == (16, 97), "the table and the code must agree"
_VERSION: Final = 1
_PROMISED_BYTES: Final = len(ZERO_BALLOT)
_ENTRY, _PROMISE, _CLOSING, _SINCE = 1, 2, 4, 8
_LIVE, _WHOLE, _BASE = 1, 2, 4


class Replaced(NamedTuple):
    """What is kept of an entry that another one replaced."""

    version: Version
    base: Version | None = None
    live: bool = True
    """It was no tombstone and not due, so that a delete which is asked twice still knows what it deleted."""
    whole: bool = True
    """Its body was there; an accept without its body counts for order, never as held."""


class Register(NamedTuple):
    """One key at one owner. NamedTuples here, not dataclasses: they are made for every write."""

    entry: Entry | None
    """What was accepted last; None when only a promise is held."""
    replaced: tuple[Replaced, ...] = ()
    """What it replaced, newest first, limits.REMEMBERED_MAX at most."""
    since_us: int | None = 0
    """The memory holds all that was ever accepted from this time on; None: only from its oldest remembered entry on."""
    promised: Ballot = ZERO_BALLOT
    """Offers below are refused. ZERO_BALLOT unless a promise is outstanding."""
    closing: bool = False
    """The promise, or one below it, is a container's closing one: rows are refused until something is accepted."""

    @property
    def ballot(self) -> Ballot:
        """The ballot accepted last; nothing is accepted at or below it."""
        return ZERO_BALLOT if self.entry is None else self.entry.ballot

    @property
    def outstanding(self) -> Ballot:
        """What the next ballot has to pass."""
        return max(self.ballot, self.promised)


def never_accepted(held: Register, first: Version) -> bool:
    """Say whether an owner has definitely never accepted a write since it was first offered as `first`.

    Its memory must reach back before that ballot, and neither the write, nor anything judged on it, nor anything
    judged on something newer than that ballot, may be there. False means only "cannot tell".
    """
    memory = list(held.replaced)
    if held.entry is not None:
        memory.insert(0, Replaced(held.entry.version, held.entry.base))
    since = [old for old in memory if old.version.ballot >= first.ballot]
    reaches_back = len(since) < len(memory) or (
        held.since_us is not None and held.since_us < first.ballot.micros
    )
    return reaches_back and all(
        old.version.write_id != first.write_id
        and (old.base is None or (old.base.write_id != first.write_id and old.base.ballot < first.ballot))
        for old in since
    )


def encode_register(register: Register, entry_raw: bytes | None = None) -> bytes:
    """Write a register down; `entry_raw` is its encoded entry, for a caller that has it already."""
    if entry_raw is None:
        entry_raw = b"" if register.entry is None else encode(register.entry)
    flags = _ENTRY if register.entry is not None else 0
    promised = b""
    if register.promised != ZERO_BALLOT:
        flags |= _PROMISE | (_CLOSING if register.closing else 0)
        promised = register.promised
    if register.since_us is not None:
        flags |= _SINCE
    fixed = _FIXED.pack(_VERSION, flags, len(register.replaced), len(entry_raw), register.since_us or 0)
    if not register.replaced:
        return fixed + promised + entry_raw
    return b"".join((fixed, promised, *map(_encode_replaced, register.replaced), entry_raw))


def decode_register(raw: bytes) -> Register:
    """Read a register out of bytes that a checksum around them covers.

    Raises EntryDamaged when it is of an unknown version or its lengths do not add up.
    """
    format_version, flags, replaced_count, entry_bytes, since_us = _FIXED.unpack_from(raw)
    if format_version != _VERSION:
        raise _unknown_version(format_version)
    at, promised = _FIXED.size, ZERO_BALLOT
    if flags & _PROMISE:
        promised = Ballot(raw[at : at + _PROMISED_BYTES])
        at += _PROMISED_BYTES
    entry_at = at + replaced_count * _REPLACED.size
    if len(raw) != entry_at + entry_bytes:
        raise EntryDamaged("register lengths do not add up")
    replaced = tuple(map(_decode_replaced, _REPLACED.iter_unpack(raw[at:entry_at]))) if replaced_count else ()
    return Register(
        decode_trusted(raw[entry_at:]) if flags & _ENTRY else None,
        replaced,
        since_us if flags & _SINCE else None,
        promised,
        bool(flags & _CLOSING),
    )


def entry_in(raw: bytes, start: int = 0) -> bytes | None:
    """Return the entry, as it is encoded, of an encoded register that begins at `start`; None: it holds none.

    What is remembered beside it is not read. Raises EntryDamaged as `decode_register` does.
    """
    format_version, flags, replaced_count, entry_bytes, _ = _FIXED.unpack_from(raw, start)
    if format_version != _VERSION:
        raise _unknown_version(format_version)
    entry_at = start + _FIXED.size + (_PROMISED_BYTES if flags & _PROMISE else 0)
    entry_at += replaced_count * _REPLACED.size
    if len(raw) != entry_at + entry_bytes:
        raise EntryDamaged("register lengths do not add up")
    return raw[entry_at:] if flags & _ENTRY else None


def _unknown_version(found: int) -> EntryDamaged:
    return EntryDamaged(f"register version {found} is not known to this release; upgrade it")


def _encode_replaced(old: Replaced) -> bytes:
    flags = old.live * _LIVE | old.whole * _WHOLE | (old.base is not None) * _BASE
    return _REPLACED.pack(flags, *old.version, *(old.base or (NO_WRITE, ZERO_BALLOT)))


def _decode_replaced(fields: tuple[int, bytes, bytes, bytes, bytes]) -> Replaced:
    flags, write_id, ballot, base_write_id, base_ballot = fields
    base = Version(WriteId(base_write_id), Ballot(base_ballot)) if flags & _BASE else None
    version = Version(WriteId(write_id), Ballot(ballot))
    return Replaced(version, base, bool(flags & _LIVE), bool(flags & _WHOLE))
