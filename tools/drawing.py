"""Drawing: a sample of what the listings of a cluster name, each name as likely as any other.

Owns how much is looked into, and the choice. The listings of a table are gone over, partition by partition in random order, until far
more is known of than is wanted (or all there is): which ranges of names they have and how many are in each. Names are drawn from
all of that by their number, and only the ranges that hold a drawn one are read. What is known of in no more than
PARTITIONS_MAX partitions and LISTINGS_MAX listings is drawn from; another run goes over others. Never judges what it draws.
"""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple, Protocol

from ring.device import Device
from ring.ring import Ring
from storage_node.differing import just_before
from swiftlike.limits import PAGE_ITEMS_MAX
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, Query, Row, objects
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Timestamp

KNOWN_TIMES: Final = 20
"""So many names for each that is wanted are known of before any is drawn, ..."""
LISTINGS_MIN: Final = 2_000
"""... of so many listings, so that no large one is all of the sample."""
LISTINGS_MAX: Final = 50_000
PARTITIONS_MAX: Final = 20_000
AT_ONCE: Final = 32
"""Partitions, or ranges, that are looked into at the same time."""
ALONE_OF: Final = 16
"""Where fewer than one name in so many of a range is drawn, its rows are asked for one by one."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a listing says is there."""

    table: bytes
    path: bytes
    ballot: Ballot
    """Of the version that the listing shows; ZERO_BALLOT: it tells of none."""


@dataclass(slots=True)
class Sample:
    """What was drawn."""

    named: list[Named] = field(default_factory=list)
    listed: int = 0
    """Names that were known of, to draw from."""
    partitions: int = 0
    """Partitions of listings that were looked into."""
    unread: int = 0
    """Those of them of which no owner answered."""


class Range(NamedTuple):
    """Some names of a listing, next to each other."""

    partition: int
    parent: bytes
    """Path of what is listed."""
    incarnation: Timestamp
    start: bytes
    stop: bytes
    """The first name behind it; empty: it goes to the end."""
    names: int


class Asked(Protocol):
    """The cluster that is drawn from."""

    def client(self, device: Device) -> NodeClient | None:
        """Return the way to a device; None for one that did not answer."""

    def owners(self, ring: Ring, partition: int) -> list[Device]:
        """Return the owners of a partition whose votes count."""


async def draw(cluster: Asked, table: bytes, ring: Ring, wanted: int, random: Random) -> Sample:
    """Draw names from the listings that a table places, until there are enough or none is left that is known of."""
    sample = Sample()
    ranges = await _known(cluster, table, ring, wanted, random, sample)
    ends = list(accumulate(each.names for each in ranges))
    sample.listed = ends[-1] if ends else 0
    drawn: set[int] = set()
    found: dict[Named, None] = {}
    # More than once where names have gone meanwhile, or nobody told of a range.
    while len(found) < wanted and len(drawn) < sample.listed:
        more = choose(sample.listed, wanted - len(found), drawn, random)
        drawn.update(more)
        places: dict[int, list[int]] = {}
        for number in more:
            at = bisect_right(ends, number)
            places.setdefault(at, []).append(number - (ends[at - 1] if at else 0))
        gate = asyncio.Semaphore(AT_ONCE)

        async def read(at: int, positions: Sequence[int], gate: asyncio.Semaphore = gate) -> list[Named]:
            async with gate:
                return await _named_in(cluster, table, ring, ranges[at], positions)

        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(read(at, positions)) for at, positions in places.items()]
        found.update(dict.fromkeys(named for task in reading for named in task.result()))
    sample.named = list(found)
    return sample


def choose(listed: int, wanted: int, drawn: set[int], random: Random) -> list[int]:
    """Return up to `wanted` of the numbers below `listed` that are not drawn yet, each as likely as any other."""
    if wanted >= listed - len(drawn):
        return [number for number in range(listed) if number not in drawn]
    chosen: dict[int, None] = {}
    if 2 * len(drawn) > listed:
        return random.sample([number for number in range(listed) if number not in drawn], wanted)
    while len(chosen) < wanted:
        some = random.sample(range(listed), wanted - len(chosen))
        chosen.update((number, None) for number in some if number not in drawn)
    return list(chosen)


# --- what there is ------------------------------------------------------------------------------------------------


async def _known(
    cluster: Asked, table: bytes, ring: Ring, wanted: int, random: Random, sample: Sample
) -> list[Range]:
    """Return the ranges of listings, of partitions in random order, and count those partitions."""
    known: list[Range] = []
    listings = names = 0
    order = random.sample(range(ring.partition_count), min(ring.partition_count, PARTITIONS_MAX))
    for at in range(0, len(order), AT_ONCE):
        some = order[at : at + AT_ONCE]
        async with asyncio.TaskGroup() as tasks:
            looking = [tasks.create_task(_ranges_in(cluster, table, ring, partition)) for partition in some]
        for task in looking:
            ranges = task.result()
            sample.partitions += 1
            sample.unread += ranges is None
            known += ranges or ()
            listings += len({(each.parent, each.incarnation) for each in ranges or ()})
            names += sum(each.names for each in ranges or ())
        if listings >= LISTINGS_MAX or (listings >= LISTINGS_MIN and names >= KNOWN_TIMES * wanted):
            break
    return known


async def _ranges_in(cluster: Asked, table: bytes, ring: Ring, partition: int) -> list[Range] | None:
    """Return the ranges of all listings of one partition that hold anything; None when no owner of it can be asked."""
    for client in _ways(cluster, ring, partition):
        try:
            found: list[Range] = []
            after: tuple[bytes, Timestamp] | None = None
            more = True
            while more and len(found) < LISTINGS_MAX:
                listings, more, votes = await client.listings(table, partition, after)
                if not votes:
                    break
                for path, incarnation, _ in listings:
                    found += await _ranges_of(client, table, partition, path, incarnation)
                    after = path, incarnation
            else:
                return found
        except NodeFailed:
            continue  # another owner is asked
    return None


async def _ranges_of(
    client: NodeClient, table: bytes, partition: int, path: bytes, incarnation: Timestamp
) -> list[Range]:
    bounds: list[tuple[bytes, int]] = []
    after: bytes | None = None
    while True:
        page, after = await client.ranges(table, path, incarnation, after)
        bounds += [(first, tally.rows) for first, tally in page]
        if after is None:
            break
    stops = [*(first for first, _ in bounds[1:]), b""]
    return [
        Range(partition, path, incarnation, first, stop, rows)
        for (first, rows), stop in zip(bounds, stops, strict=False)
        if rows
    ]


def _ways(cluster: Asked, ring: Ring, partition: int) -> list[NodeClient]:
    ways = (cluster.client(device) for device in cluster.owners(ring, partition))
    return [way for way in ways if way is not None]


# --- what was drawn -----------------------------------------------------------------------------------------------


async def _named_in(
    cluster: Asked, table: bytes, ring: Ring, place: Range, positions: Sequence[int]
) -> list[Named]:
    """Return what stands at these positions of a range; nothing where it is shorter by now, or nobody tells."""
    for client in _ways(cluster, ring, place.partition):
        try:
            if ALONE_OF * len(positions) > place.names:
                rows = await _rows(client, table, place)
                rows = [rows[at] for at in positions if at < len(rows)]
            else:
                names = [row.name for row in await _rows(client, table, place, names_only=True)]
                rows = []
                for name in [names[at] for at in positions if at < len(names)]:
                    rows += await _rows(client, table, place._replace(start=name, stop=name + b"\0"))
        except NodeFailed:
            continue  # another owner is asked
        return [
            _named(table, place.parent, row.name, entry.policy, entry.ballot)
            for row in rows
            if (entry := row.entry) is not None
        ]
    return []


async def _rows(client: NodeClient, table: bytes, place: Range, *, names_only: bool = False) -> list[Row]:
    """Return the rows of a range that clients see, or their names."""
    found: list[Row] = []
    marker: bytes | None = just_before(place.start)
    while marker is not None:
        query = Query(
            marker=marker,
            end_marker=place.stop,
            limit=PAGE_ITEMS_MAX,
            now_us=time.time_ns() // 1000,
            names_only=names_only,
        )
        page, _ = await client.list_rows(table, place.parent, query, place.incarnation)
        found += page.rows
        marker = page.more
    return found


def _named(table: bytes, parent: bytes, name: bytes, policy: int, ballot: Ballot) -> Named:
    path = parent + b"\0" + name
    if table == ACCOUNTS:
        return Named(CONTAINERS, path, ZERO_BALLOT)  # a container's row has a ballot of its own kind
    return Named(objects(policy), path, ballot)
