"""swiftlike-dispersion: of a sample of what listings name, what share is at all of its owners, at some of them, at none.

Owns what counts as a copy, and what is told; how the sample is drawn is `drawing`'s. Nothing is written for it: names are drawn from the
listings of containers and accounts, which are placed apart from what they name, so that an object of which no copy is left is
noticed too, and so that what is measured is what clients have put there.

Whatever is not at all of its owners is looked at once more a moment later: it may be on its way. Exit codes: 0 all that was sampled is at all of its owners; 1 not; 2
nobody could be asked.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import click

from ring.device import Device, DeviceId
from ring.errors import RingError
from ring.hashing import partition_of_hash, path_hash
from ring.ring import Ring
from storage_node.sharing import owners_of
from swiftlike.config import ConfigError
from swiftlike.limits import PAGE_ITEMS_MAX
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, HeldVersion
from swiftlike.node_client import NodeClient
from swiftlike.timestamps import ZERO_BALLOT
from tools.asking import NOT_WELL, config_option, fail, json_option, show, timeout_option
from tools.drawing import Named, Sample, draw
from tools.members import Members, Silence, ask_all, open_members
from tools.ring_builder.tables import show_lines, show_table

_TOOL: Final = "swiftlike-dispersion"
AGAIN_S: Final = 2.0
"""Until the second look."""
TOLD_MAX: Final = 20

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """How many of its owners hold the newest version of something, whole."""

    named: Named
    owners: int
    copies: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@config_option
@click.option(
    "--sample",
    "wanted",
    type=click.IntRange(1, 1_000_000),
    default=1_000,
    show_default=True,
    help="Objects, and containers, to look for; all of them where there are fewer.",
)
@click.option("--seed", type=int, help="Draw the same sample again, as long as the cluster is the same.")
@json_option
@timeout_option
def main(config: Path, wanted: int, seed: int | None, as_json: bool, timeout_s: float) -> None:
    """Say what share of a sample of objects and containers is at all of its owners, at some, and at none. Writes nothing.

    Exit codes: 0 all is at all of its owners; 1 not; 2 nobody could be asked.
    """
    random = Random(seed)
    try:
        document = asyncio.run(_measure(config.absolute(), wanted, random, timeout_s))
    except (ConfigError, RingError, OSError) as error:
        fail(_TOOL, str(error))
    if not document["answering"]:
        fail(_TOOL, "no device answers: see that they run, and that this host reaches them")
    show(document, as_json, lambda: _show(document))
    sys.exit(0 if document["well"] else NOT_WELL)


async def _measure(config: Path, wanted: int, random: Random, timeout_s: float) -> Document:
    async with open_members(config) as members:
        cluster = Cluster(members, timeout_s)
        await cluster.look()
        parts: dict[str, Document] = {}
        for kind, listing_table in (("objects", CONTAINERS), ("containers", ACCOUNTS)):
            sample = await draw(cluster, listing_table, members.rings[listing_table], wanted, random)
            found = await cluster.find(sample.named)
            if short := [each.named for each in found if each.copies < each.owners]:
                await asyncio.sleep(AGAIN_S)
                again = {each.named: each for each in await cluster.find(short)}
                found = [again.get(each.named, each) for each in found]
            parts[kind] = part_document(sample, found, members.rings[listing_table].partition_count)
        silent = {str(member): reason for member, reason in cluster.silent.items()}
    return {
        **parts,
        "answering": len(members.all) - len(silent),
        "silent": silent,
        "well": not silent and all(not part["partly"] and not part["not_there"] for part in parts.values()),
    }


def part_document(sample: Sample, found: Sequence[Found], partition_count: int) -> Document:
    """Describe what came of a sample."""
    by_copies = Counter(each.copies for each in found)
    fully = sum(each.copies == each.owners for each in found)
    gone = by_copies[0]
    count = len(found)
    worst = sorted((each for each in found if each.copies < each.owners), key=lambda each: each.copies)
    return {
        "sampled": count,
        "listed": sample.listed,
        "fully": fully,
        "partly": count - fully - gone,
        "not_there": gone,
        "fully_percent": round(100 * fully / count, 3) if count else None,
        "without_majority": sum(each.copies <= each.owners // 2 for each in found),
        "by_copies": {str(copies): by_copies[copies] for copies in sorted(by_copies, reverse=True)},
        "partitions_looked_into": sample.partitions,
        "partitions": partition_count,
        "partitions_unread": sample.unread,
        "worst": [
            {"path": shown(each.named.path), "copies": each.copies, "owners": each.owners}
            for each in worst[:TOLD_MAX]
        ],
    }


def shown(path: bytes) -> str:
    """Write a path as `swiftlike-inspect` takes it; what a hidden name holds besides is told by its number."""
    return path[:1].decode().replace("\0", "\\0") + path[1:].replace(b"\0", b"/", 2).decode(
        "utf-8", "backslashreplace"
    ).replace("\0", "\\0")


def copies_of(named: Named, answers: Iterable[HeldVersion | None]) -> int:
    """Count the owners that hold the newest version which any of them tells of, whole, and nothing older than is listed."""
    held = [answer for answer in answers if answer is not None and answer.version is not None]
    newest = max((each.ballot for each in held), default=ZERO_BALLOT)
    if newest < named.ballot:
        return 0
    return sum(each.whole and each.ballot == newest for each in held)


class Cluster:
    """The devices that answer, and how they are asked for listings and versions."""

    def __init__(self, members: Members, timeout_s: float) -> None:
        self._members: Final = members
        self._timeout_s: Final = timeout_s
        self._epochs: dict[tuple[str, int], Mapping[str, int]] = {}
        self.silent: dict[str, str] = {}

    async def look(self) -> None:
        """See who answers, and under which epochs."""

        async def ask(member: Any) -> Mapping[str, int]:
            health = await self._members.client(member, timeout_s=self._timeout_s).health()
            epochs: Mapping[str, int] = health.get("epochs", {})
            return epochs

        answers = await ask_all(self._members.all, ask)
        for member, answer in zip(self._members.all, answers, strict=True):
            if isinstance(answer, Silence):
                self.silent[str(member)] = answer.reason
            else:
                self._epochs[member.host, member.port] = answer

    def client(self, device: Device) -> NodeClient | None:
        """Return the way to a device; None for one that did not answer."""
        epochs = self._epochs.get((device.host, device.port))
        return None if epochs is None else self._members.client(device, epochs, self._timeout_s)

    def owners(self, ring: Ring, partition: int) -> list[Device]:
        """Return the owners of a partition whose votes count."""
        voting, _ = owners_of(ring, partition)
        return [device for owner in voting if (device := ring.devices[owner]) is not None]

    async def find(self, named: Sequence[Named]) -> list[Found]:
        """Ask all owners of these for the versions that they hold, many in one call."""
        wanted: dict[tuple[bytes, DeviceId], list[Named]] = {}
        owners: dict[Named, list[Device]] = {}
        for each in named:
            ring = self._members.rings[each.table]
            hashed = path_hash(each.path, ring.hash_seed)
            owners[each] = self.owners(ring, partition_of_hash(hashed, ring.part_power))
            for device in owners[each]:
                wanted.setdefault((each.table, device.id), []).append(each)
        answers: dict[tuple[DeviceId, Named], HeldVersion] = {}

        async def ask(asked: tuple[bytes, DeviceId, Sequence[Named]]) -> None:
            table, owner, some = asked
            device = self._members.rings[table].devices[owner]
            client = None if device is None else self.client(device)
            if client is not None:
                held = await client.versions_of(table, [each.path for each in some])
                answers.update(((owner, each), version) for each, version in zip(some, held, strict=True))

        batches = [
            (table, owner, some[at : at + PAGE_ITEMS_MAX])
            for (table, owner), some in wanted.items()
            for at in range(0, len(some), PAGE_ITEMS_MAX)
        ]
        for (table, owner, _), answer in zip(batches, await ask_all(batches, ask), strict=True):
            if isinstance(answer, Silence):
                self.silent.setdefault(str(self._members.rings[table].devices[owner]), answer.reason)
        return [
            Found(
                each,
                len(owners[each]),
                copies_of(each, (answers.get((device.id, each)) for device in owners[each])),
            )
            for each in named
        ]


def _show(document: Document) -> None:
    columns = ("", "sampled", "fully", "partly", "not there", "fully %", "without a majority")
    show_table(
        columns,
        (
            (
                kind,
                *(
                    document[kind][name]
                    for name in (
                        "sampled",
                        "fully",
                        "partly",
                        "not_there",
                        "fully_percent",
                        "without_majority",
                    )
                ),
            )
            for kind in ("objects", "containers")
        ),
    )
    for kind in ("objects", "containers"):
        part = document[kind]
        show_lines(
            f"{kind}: drawn from {part['listed']} in {part['partitions_looked_into']} of {part['partitions']} partitions of listings"
            + (f", {part['partitions_unread']} of which nobody told" if part["partitions_unread"] else "")
        )
        show_lines(
            *(f"  {each['copies']} of {each['owners']} copies: {each['path']}" for each in part["worst"])
        )
    show_lines(*(f"warning: {device} does not answer ({why})" for device, why in document["silent"].items()))


if __name__ == "__main__":
    main()
