"""swiftlike-inspect: where each copy of an object is, which version, and whether it is sound.

Owns who is asked about a path (owners, new owners of what moves, and all other devices of the ring as handoffs), and what of their
answers is not as it should be. Each device reads its own copy back, block by block, and sends nothing of it; a bad one is
then set aside and mended, like one that a client met. Changes nothing else.

Exit codes: 0 all owners hold the same version, whole; 1 not, or it is nowhere; 2 nobody could be asked.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from proxy.store.buckets import NAMES
from ring.device import Device, Partition
from ring.errors import RingError
from ring.hashing import partition_of_hash, path_hash
from ring.ring import Ring
from storage_node.sharing import owners_of
from swiftlike.config import ConfigError
from swiftlike.entries import Entry, unpack_metadata
from swiftlike.listed import TOTAL_SIZE
from swiftlike.names import (
    ACCOUNT_BYTES_MAX,
    CONTAINER_BYTES_MAX,
    OBJECT_BYTES_MAX,
    NameRefused,
    check_name,
    path_of,
)
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, Code
from swiftlike.node_client import NodeFailed
from swiftlike.registers import Register
from swiftlike.timestamps import ZERO_BALLOT
from tools.asking import NOT_ASKED, NOT_WELL, config_option, fail, json_option, show, timeout_option
from tools.members import Members, Silence, ask_all, open_members
from tools.recon.tables import size
from tools.ring_builder.tables import show_lines, show_table

_TOOL: Final = "swiftlike-inspect"
READ_BYTES_PER_S: Final = 10 * 1024**2
"""How slowly a device may read a body back and still be waited for."""
BUCKET_LEAD: Final = "s3://"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Copy:
    """What one device said of a path."""

    register: Register | None
    whole: bool
    votes: bool
    body: str
    """`sound`, `damaged`, `missing`; `none` where the entry has none; `unread` where nobody asked."""

    @property
    def entry(self) -> Entry | None:
        """What stands there."""
        return None if self.register is None else self.register.entry


Answers = Sequence[tuple[Device, str, Copy | Silence]]
"""Devices, what each is to the partition, and what it said."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path")
@config_option
@json_option
@click.option("--no-read", is_flag=True, help="Do not have bodies read back: say where they are, at once.")
@timeout_option
def main(path: str, config: Path, as_json: bool, no_read: bool, timeout_s: float) -> None:
    """Say where the copies of PATH are: account/container/object, account/container, account, or s3://bucket/key.

    The account is written as in a storage URL, such as AUTH_acme.

    Exit codes: 0 all owners hold the same version, whole; 1 not, or it is nowhere; 2 nobody could be asked.
    """
    try:
        end = asyncio.run(_inspect(config.absolute(), path, timeout_s, reads=not no_read))
    except (ConfigError, RingError, NameRefused, OSError) as error:
        fail(_TOOL, str(error))
    if isinstance(end, str):
        fail(_TOOL, end)
    show(end, as_json, lambda: _show(end))
    answered = any(copy["answers"] for ring in end["rings"] for copy in ring["copies"])
    sys.exit(NOT_ASKED if not answered else 0 if end["well"] else NOT_WELL)


def parse(path: str) -> tuple[bytes, ...]:
    """Take a path apart into one to three names. Raises NameRefused."""
    parts = path.encode("utf-8", "surrogateescape").split(b"/", 2)
    bounds = (
        ("account", ACCOUNT_BYTES_MAX),
        ("container", CONTAINER_BYTES_MAX),
        ("object", OBJECT_BYTES_MAX),
    )
    return tuple(check_name(kind, part, most) for part, (kind, most) in zip(parts, bounds, strict=False))


async def _inspect(config: Path, path: str, timeout_s: float, *, reads: bool) -> Document | str:
    async with open_members(config) as members:
        if path.startswith(BUCKET_LEAD):
            bucket, slash, key = path.removeprefix(BUCKET_LEAD).partition("/")
            account = await _account_of(members, bucket, timeout_s)
            if account is None:
                return f"no device that answers knows whose bucket {bucket} is: name it as account/container/object"
            path = f"{account}/{bucket}{slash if key else ''}{key}"
        parts = parse(path)
        rings = [
            (ring, await _ask(members, table, path_of(*parts), timeout_s, reads=reads))
            for table, ring in _placing(members, len(parts))
        ]
    documents = [
        ring_document(ring, path_of(*parts), answers, time.time_ns() // 1000) for ring, answers in rings
    ]
    return document_of(path, documents)


def _placing(members: Members, parts: int) -> list[tuple[bytes, Ring]]:
    """Return the tables and rings in which a path of so many names may be: an object is in one policy, and which is not known."""
    match parts:
        case 1:
            return [(ACCOUNTS, members.rings[ACCOUNTS])]
        case 2:
            return [(CONTAINERS, members.rings[CONTAINERS])]
        case _:
            return [item for item in members.rings.items() if item[0] not in (ACCOUNTS, CONTAINERS)]


async def _account_of(members: Members, bucket: str, timeout_s: float) -> str | None:
    """Look whose a bucket is: the newest of the claims that devices hold."""
    path = path_of(NAMES.account, NAMES.container, check_name("bucket", bucket.encode(), CONTAINER_BYTES_MAX))
    claims = [
        copy.entry
        for table, _ in _placing(members, 3)
        for _, _, copy in await _ask(members, table, path, timeout_s, reads=False)
        if isinstance(copy, Copy) and copy.entry is not None
    ]
    newest = max(claims, key=lambda entry: entry.ballot, default=None)
    if newest is None or newest.tombstone:
        return None
    account = unpack_metadata(newest.metadata).get("sys:account")
    return None if account is None else str(account)


async def _ask(members: Members, table: bytes, path: bytes, timeout_s: float, *, reads: bool) -> Answers:
    """Ask all devices of a ring about a path, each under the epoch that it has."""
    ring = members.rings[table]
    roles = roles_in(ring, path)

    async def ask(asked: tuple[Device, str]) -> Copy:
        device, _ = asked
        epochs = (await members.client(device, timeout_s=timeout_s).health()).get("epochs", {})
        register, whole, votes = await members.client(device, epochs, timeout_s).read(table, path)
        entry = None if register is None else register.entry
        if entry is None or not entry.has_body:
            return Copy(register, whole, votes, "none")
        if not whole:
            return Copy(register, whole, votes, "missing")
        if not reads:
            return Copy(register, whole, votes, "unread")
        patient = members.client(device, epochs, timeout_s + entry.size / READ_BYTES_PER_S)
        try:
            body = "sound" if await patient.verify(table, path) else "missing"
        except NodeFailed as failure:
            if failure.reply.code != Code.BODY_DAMAGED:
                raise
            body = "damaged"
        return Copy(register, whole, votes, body)

    answers = await ask_all(roles, ask)
    return [(device, role, answer) for (device, role), answer in zip(roles, answers, strict=True)]


def roles_in(ring: Ring, path: bytes) -> list[tuple[Device, str]]:
    """Return all devices of a ring and what each is to the partition of a path: owners first, then who stands in, in order."""
    partition = partition_of(ring, path)
    voting, joining = owners_of(ring, partition)
    devices = {device.id: device for device in ring.devices if device is not None}
    roles = dict.fromkeys(voting, "owner")
    if joining:
        roles = {owner: "owner" if owner in joining else "previous owner" for owner in voting}
        roles |= {owner: "new owner" for owner in joining if owner not in voting}
    stand_ins = [device for device in ring.handoffs(partition) if device.id not in roles]
    drained = [device for device in devices.values() if device.id not in roles and device not in stand_ins]
    return [
        *((devices[owner], role) for owner, role in roles.items()),
        *((device, "handoff") for device in (*stand_ins, *drained)),
    ]


def partition_of(ring: Ring, path: bytes) -> Partition:
    """Return the partition of a whole path."""
    return partition_of_hash(path_hash(path, ring.hash_seed), ring.part_power)


def ring_document(ring: Ring, path: bytes, answers: Answers, now_us: int) -> Document:
    """Describe what the devices of a ring hold at a path."""
    entries = [copy.entry for _, _, copy in answers if isinstance(copy, Copy) and copy.entry is not None]
    newest = max(entries, key=lambda entry: entry.ballot, default=None)
    copies = [_copy_document(device, role, copy, newest, now_us) for device, role, copy in answers]
    voting = [copy for copy in copies if copy["role"] in ("owner", "previous owner")]
    shown = [
        copy for copy in copies if copy["role"] != "handoff" or copy.get("state") not in (None, "nothing")
    ]
    return {
        "ring": ring.name,
        "epoch": ring.epoch,
        "partition": int(partition_of(ring, path)),
        "path_hash": f"{path_hash(path, ring.hash_seed):032x}",
        "owners": len(voting),
        "sound_copies": sum(copy["good"] for copy in voting),
        "handoffs_asked": sum(copy["role"] == "handoff" for copy in copies),
        "handoffs_silent": sum(copy["role"] == "handoff" and not copy["answers"] for copy in copies),
        "newest": None if newest is None else _entry_document(newest, now_us),
        "copies": shown,
    }


def _entry_document(entry: Entry, now_us: int) -> Document:
    metadata = {name: str(value) for name, value in unpack_metadata(entry.metadata).items()}
    due = 0 < entry.delete_at <= now_us
    return {
        "state": "deleted" if entry.tombstone else "due" if due else "live",
        "ballot": repr(entry.ballot),
        "write_id": entry.write_id.hex(),
        "size": int(metadata.get(TOTAL_SIZE, entry.size)),
        "stored_bytes": entry.size,
        "modified_us": entry.modified,
        "delete_at_us": entry.delete_at,
        "metadata": {name: value for name, value in metadata.items() if not name.startswith("sys:")},
    }


def _copy_document(
    device: Device, role: str, copy: Copy | Silence, newest: Entry | None, now_us: int
) -> Document:
    document: Document = {"device": str(device), "role": role}
    if isinstance(copy, Silence):
        return {**document, "answers": False, "why": copy.reason, "good": False}
    entry = copy.entry
    document |= {"answers": True, "votes": copy.votes}
    if copy.register is not None and copy.register.promised != ZERO_BALLOT:
        document["promised"] = repr(copy.register.promised)
    if entry is None:
        is_good = newest is None
        return {**document, "state": "nothing", "good": is_good}
    is_newest = newest is not None and entry.version == newest.version
    return {
        **document,
        **_entry_document(entry, now_us),
        "body": copy.body,
        "newest": is_newest,
        "good": is_newest and copy.body in ("sound", "none", "unread"),
    }


def document_of(path: str, rings: list[Document]) -> Document:
    """Describe a path: in the rings where something of it is, or in all where nothing is; and say what is not well."""
    rings = [ring for ring in rings if ring["newest"] is not None] or rings
    live = [ring for ring in rings if ring["newest"] is not None and ring["newest"]["state"] != "deleted"]
    warnings = [warning for ring in rings for warning in _warnings(ring)]
    if not live:
        warnings.insert(0, "no device that answers holds it" if not rings[0]["newest"] else "it was deleted")
    return {"path": path, "found": bool(live), "rings": rings, "warnings": warnings, "well": not warnings}


def _warnings(ring: Document) -> list[str]:
    warnings = []
    for copy in ring["copies"]:
        device = copy["device"]
        if copy["role"] == "handoff" and copy["answers"]:
            continue  # it gives back what it holds, and owes nobody a sound copy
        if not copy["answers"]:
            if copy["role"] != "handoff":
                warnings.append(f"{device} ({copy['role']}) does not answer: {copy['why']}")
            continue
        if not copy["votes"] and copy["role"] != "new owner":
            warnings.append(f"{device} does not vote on its partition: it has still to catch up")
        if ring["newest"] is None or copy["good"]:
            continue
        match copy.get("body", "nothing"):
            case "damaged":
                warnings.append(
                    f"{device} held a damaged body: it is set aside, and brought back from another owner"
                )
            case "missing":
                warnings.append(
                    f"{device} lacks the body: it is brought back while an owner who answers has it"
                )
            case _:
                warnings.append(
                    f"{device} is behind: it takes the newest version at its next pass, or when it is read"
                )
    return warnings


def _show(document: Document) -> None:
    for ring in document["rings"]:
        newest = ring["newest"]
        show_lines(
            f"{document['path']}: ring {ring['ring']}, epoch {ring['epoch']}, partition {ring['partition']}, hash"
            f" {ring['path_hash']}"
        )
        if newest is not None:
            show_lines(
                f"newest: {newest['state']}, {newest['size']} bytes ({size(newest['size'])}), ballot {newest['ballot']}, write"
                f" {newest['write_id']}",
                f"{ring['sound_copies']} of {ring['owners']} owners hold it",
            )
        show_table(
            ("device", "is", "state", "version", "stored bytes", "body", "votes"),
            (
                (
                    copy["device"],
                    copy["role"],
                    copy.get("state", "silent"),
                    ("newest" if copy["newest"] else copy["ballot"]) if "newest" in copy else None,
                    copy.get("stored_bytes"),
                    copy.get("body"),
                    None if not copy["answers"] else "yes" if copy["votes"] else "no",
                )
                for copy in ring["copies"]
            ),
        )
        silent = f", {ring['handoffs_silent']} of which are silent" if ring["handoffs_silent"] else ""
        show_lines(f"handoffs asked: {ring['handoffs_asked']}{silent}")
    show_lines(*(f"warning: {warning}" for warning in document["warnings"]))


if __name__ == "__main__":
    main()
