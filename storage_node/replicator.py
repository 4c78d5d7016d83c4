"""The replicator: finds out in what this device and the other owners differ, and has each take what it lacks.

Owns when whom is asked (`comparing`: one message has all partitions that two devices share); those with the fewest sound copies are
healed first, several side by side, each from one peer after the other. Partitions on which this device does not vote are caught up with (`catching_up`), those that
it holds and does not own are given back (`returning`). A hint (of a peer, of a proxy whose write failed, of a
device that answers again) begins with one partition or one device at once, beside the passes. Never pushes a copy: who lacks
something is told, and takes it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final, NoReturn
from uuid import UUID
from weakref import WeakValueDictionary

from ring.device import Device, DeviceId
from ring.ring import Ring
from storage_node.catching_up import CatchingUp
from storage_node.comparing import Comparing, Place
from storage_node.differing import endangered_first
from storage_node.errors import DeviceFailed, RingChanged, StorageError
from storage_node.jobs import Figure
from storage_node.keys import ROWS_OF
from storage_node.peers import HealingRings, tcp_address
from storage_node.progress import Progress
from storage_node.returning import Returning
from storage_node.sharing import Shares, in_turn, shares_of
from storage_node.soundness import Soundness
from storage_node.store import Store
from storage_node.taking import Rates, Settling, Source, Taken, Taker
from swiftlike.limits import COMPARED_EVERY_S, HINTS_MAX, ITEMS_MAX, PARTITIONS_AT_ONCE
from swiftlike.node_calls import CaughtUp, Degraded, Trusted
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.transport import Address, Transport

PROBE_S: Final = 2.0
"""Between two questions to a device that did not answer, or that there are hints for."""
CALL_S: Final = 10.0
BODY_S: Final = 3600.0

log: Final = logging.getLogger(__name__)


class Replicator:
    """Heals for one device. `run` it; `hint` and `caught_up` are what others may ask."""

    def __init__(
        self,
        store: Store,
        uuid: UUID,
        rings: HealingRings,
        transport: Transport,
        settling: Settling | None,
        random: Random,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_thread: Callable[[Ring, UUID], Awaitable[Shares]] | None = None,
        address_of: Callable[[Device], Address] = tcp_address,
        rates: Rates = Rates(),  # noqa: B008  # a value
        read_us: Callable[[], int] = lambda: 0,
        is_paused: Callable[[], bool] = lambda: False,
        every_s: float = COMPARED_EVERY_S,
        again_s: float = COMPARED_EVERY_S,
        read_lag_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Take the device, its rings, the way to its peers, who settles, and what jitter is drawn from.

        `on_thread` reads a ring's whole table where that keeps nobody waiting. `read_us` tells the time in microseconds since 1970,
        by which it says since when what is degraded. While it `is_paused` it compares, and takes nothing.
        Between two passes it rests `every_s`, more or less; after one that did not find all well `again_s` at most, and twice as long
        after each further one, so that what is told of sound copies is soon true again. `read_lag_s` tells how long calls wait here: for them it makes way.
        """
        self._store: Final = store
        self._uuid: Final = uuid
        self._rings: Final = rings
        self._transport: Final = transport
        self._random: Final = random
        self._sleep: Final = sleep
        self._address_of: Final = address_of
        self._read_shares: Final = on_thread or _shares_here
        self.taker: Final = Taker(store, rings, settling, sleep, rates, is_paused, read_lag_s)
        self._read_us: Final = read_us
        self._read_lag_s: Final = read_lag_s
        self._is_paused: Final = is_paused
        self._every_s: Final = every_s
        self._again_s: Final = again_s
        self._rest_s = again_s
        """The longest rest after the next pass that does not find all well."""
        self._catching: Final = CatchingUp(store, rings, self.taker)
        self._returning: Final = Returning(store, rings, self.taker)
        self._shares: dict[bytes, Shares] = {}
        self._hints: dict[DeviceId | None, dict[Place, bool]] = {}
        """By device that is to be compared with: partitions, and whether that need not hear of what it lacks."""
        self._comparing: Final = Comparing(store, rings, self._shares, self._source)
        self._hinted: Final = asyncio.Event()
        self._awake: Final = asyncio.Event()
        self._busy: WeakValueDictionary[Place, asyncio.Lock] = WeakValueDictionary()
        self.counts: Final[Counter[str]] = Counter()
        self.differing = 0
        self.waiting = 0
        self._is_resting = False
        """No pass is under way."""
        self._is_well = True
        """The last pass found nothing different, nobody silent, and nothing to catch up with."""
        self.held_for_others = 0
        self.last_pass_s = 0.0
        self.last_pass_us = 0
        """When the last pass ended; 0: none has."""
        self._soundness: Final = Soundness()
        self._moves: dict[bytes, Progress] = {}
        """How fast what is moving here is caught up with, by table."""

    # --- what others may ask ------------------------------------------------------------------------------------

    def hint(self, table: bytes, partition: int, device: int | None, *, one_way: bool = False) -> bool:
        """Compare a partition soon: with this device of its ring as soon as that answers, or with all its owners; say whether it will."""
        if sum(map(len, self._hints.values())) >= HINTS_MAX:
            self.counts["hints_dropped"] += 1
            return False
        key = None if device is None else DeviceId(device)
        hints = self._hints.setdefault(key, {})
        place = (table, partition)
        hints[place] = one_way and hints.get(place, True)
        self.counts["hints"] += 1
        self._hinted.set()
        return not self._is_paused()

    def caught_up(self, table: bytes) -> CaughtUp:
        """Say how far the device is with a table's ring."""
        ring = self._rings.ring(table)
        shares = self._shares.get(table)
        if shares is not None and shares.ring is ring:
            counted = shares.owned
        else:
            # The votes that this epoch takes are not taken yet, and must not be told of.
            shares = shares_of(ring, self._uuid)
            counted = shares.staying
        voting = {number for number in counted if self._store.standing(table, number).votes}
        waiting = sorted(shares.owned - voting)
        moves = self._moves.get(table)
        return CaughtUp(
            ring.epoch,
            len(shares.owned),
            len(voting),
            len(shares.moving),
            len(shares.moving & voting),
            tuple(waiting[:ITEMS_MAX]),
            0.0 if moves is None else moves.per_s(asyncio.get_running_loop().time()),
        )

    def degraded(self) -> Sequence[Degraded]:
        """Return the partitions of this device that have fewer sound copies than owners, the worst first."""
        return self._soundness.degraded

    async def trust(self, table: bytes, partition: int) -> Trusted:
        """Vote on a partition on an operator's word, once everything was taken from the owners that vote and answer.

        Raises StorageError when one of them did not hand over everything; RingChanged, DeviceFailed.
        """
        await self._look_at_shares()
        shares = self._shares[table]
        if partition not in shares.owned:
            raise StorageError(f"this device does not own partition {partition} of ring {shares.ring.name}")
        async with self._lock((table, partition)):
            if self._store.standing(table, partition).votes:
                return Trusted(len(shares.others(partition)), 0)
            sources = self._sources(shares, partition)
            told = await self._catching.trust(shares, table, partition, sources)
        self.counts["trusted"] += 1
        log.warning(
            "votes on partition %d of table %r on an operator's word: with all that %d owners hold, and %d are silent",
            partition,
            table,
            *told,
        )
        return told

    def lag_s(self) -> float:
        """Say how long calls wait here before anybody looks at them."""
        return self._read_lag_s()

    def look_at_rings(self) -> None:
        """A ring was replaced, or a pause is over: begin a pass at once."""
        self._awake.set()

    # --- going on -----------------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Heal, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_hints())
            while True:
                try:
                    await self.walk()
                except DeviceFailed:
                    raise
                except (StorageError, OSError) as error:
                    log.error("%s; the next pass tries it again", error)
                self._is_resting = True
                await self._rest(self._awake, self._next_rest_s() * self._random.uniform(0.7, 1.3))
                self._is_resting = False

    def _next_rest_s(self) -> float:
        """Return how long to rest after a pass, by what it found."""
        if self._is_well:
            self._rest_s = self._again_s
            return self._every_s
        rest_s = min(self._rest_s, self._every_s)
        self._rest_s = 2 * rest_s
        return rest_s

    async def _follow_hints(self) -> NoReturn:
        while True:
            await self._rest(self._hinted, PROBE_S * self._random.uniform(0.7, 1.3))
            if self._is_paused():
                continue  # what is hinted at waits; above the limit, a pass finds it
            try:
                await self.heed_hints()
            except DeviceFailed:
                raise
            except (StorageError, OSError) as error:
                log.error("%s; the next pass tries it again", error)

    async def _rest(self, event: asyncio.Event, pause_s: float) -> None:
        """Wait for an event, at most so long."""
        pause = asyncio.ensure_future(self._sleep(pause_s))
        called = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait((pause, called), return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            called.cancel()
            await asyncio.gather(pause, called, return_exceptions=True)
        event.clear()

    async def walk(self) -> None:
        """Compare with every peer, and heal what differs; catch up; give back. Once.

        Where a ring changes meanwhile, what is under way is ended and the rest left to the next pass, which begins at once: what the
        new ring moves or endangers may be small, and more urgent.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._awake.clear()
        await self._look_at_shares()
        peers = {peer for shares in self._shares.values() for peer in shares.peers}
        compared = await self._comparing.compare_with(peers)
        differing: dict[Place, list[DeviceId]] = {}
        for peer, places in compared.items():
            for place in places or ():
                differing.setdefault(place, []).append(peer)
        self.differing = len(differing)
        waiting = self._not_voting()
        self.waiting = len(waiting)
        self._soundness.note(self._read_us(), self._shares, differing, self._comparing.silent, waiting)
        for place in waiting:
            differing.setdefault(place, [])
        self._is_well = not differing and not self._comparing.silent
        owners = {place: len(self._shares[place[0]].others(place[1])) + 1 for place in differing}
        silent = {place: self._silent_owners(place) for place in differing}
        gate = asyncio.Semaphore(PARTITIONS_AT_ONCE)

        async def heal(place: Place) -> None:
            async with gate:
                if not self._awake.is_set():
                    await self._heal(place, differing[place])

        async with asyncio.TaskGroup() as healing:
            for place in endangered_first(differing, owners, silent):
                healing.create_task(heal(place))
        self.waiting = len(self._not_voting())
        if self._awake.is_set():
            return
        await self._give_back()
        self.counts["passes"] += 1
        self.last_pass_s = loop.time() - began
        self.last_pass_us = self._read_us()

    async def heed_hints(self) -> None:
        """Compare what was hinted at, with whoever answers; and ask those again who did not."""
        await self._look_at_shares()
        hints, self._hints = self._hints, {}
        gate = asyncio.Semaphore(PARTITIONS_AT_ONCE)

        async def heal(place: Place, peers: Sequence[DeviceId], *, one_way: bool = False) -> None:
            async with gate:
                await self._heal(place, peers, one_way=one_way)

        async with asyncio.TaskGroup() as healing:
            for place in hints.pop(None, {}):
                if place[1] in self._shares[place[0]].owned:
                    healing.create_task(heal(place, self._shares[place[0]].others(place[1])))
            compared = await self._ask_silent(hints)
            for peer, places in compared.items():
                for place in places or ():
                    healing.create_task(heal(place, [peer]))
            for device, hinted in hints.items():
                for place, one_way in hinted.items():
                    if device is not None and place[1] in self._shares[place[0]].owned:
                        healing.create_task(heal(place, [device], one_way=one_way))
        if any(places is not None for places in compared.values()):
            # What is told of sound copies is of the last pass, and may not be long in the past now.
            self._rest_s = self._again_s
            if self._is_resting:
                self._awake.set()

    async def _ask_silent(
        self, hints: dict[DeviceId | None, dict[Place, bool]]
    ) -> dict[DeviceId, list[Place] | None]:
        """Compare with those that did not answer the last time; what is hinted at one that still does not waits for it."""
        silent = set(self._comparing.silent)
        if not silent:
            return {}
        compared = await self._comparing.compare_with(silent)
        for peer in silent & self._comparing.silent:
            for place, one_way in hints.pop(peer, {}).items():
                self._hints.setdefault(peer, {}).setdefault(place, one_way)
        return compared

    # --- rings --------------------------------------------------------------------------------------------------

    async def _look_at_shares(self) -> None:
        """Follow the rings; what an epoch takes votes from stops voting before anything else is done under it."""
        for table in self._store.layout.part_powers:
            ring = self._rings.ring(table)
            known = self._shares.get(table)
            if known is None or known.ring is not ring:
                shares = await self._read_shares(ring, self._uuid)
                if ring.part_power != self._store.layout.part_powers[table]:
                    continue  # the process is about to restart with it
                taken = await self._store.take_epoch(table, ring.epoch, shares.staying)
                known = self._shares.get(table)
                if known is None or known.ring.epoch < ring.epoch:
                    self._shares[table] = shares
                    self._moves[table] = Progress(asyncio.get_running_loop().time())
                if taken:
                    log.info("ring %s, epoch %d: %d votes end", ring.name, ring.epoch, taken)

    def _not_voting(self) -> list[Place]:
        return [
            (table, number)
            for table, shares in self._shares.items()
            for number in shares.owned
            if not self._store.standing(table, number).votes
        ]

    def _silent_owners(self, place: Place) -> int:
        return sum(owner in self._comparing.silent for owner in self._shares[place[0]].others(place[1]))

    def _source(self, shares: Shares, owner: DeviceId) -> Source | None:
        """Return the way to a device under one epoch; None for one that the ring does not know, and for this one."""
        device = shares.device(owner)
        if device is None:
            return None
        epoch = shares.ring.epoch
        address = self._address_of(device)
        client = NodeClient(self._transport, address, lambda table: epoch, timeout_s=CALL_S)
        streams = NodeClient(self._transport, address, lambda table: epoch, timeout_s=BODY_S)
        return Source(device, client, streams, epoch)

    def _sources(self, shares: Shares, partition: int) -> dict[DeviceId, Source]:
        """Return the ways to the other owners of a partition."""
        return {
            owner: source
            for owner in shares.others(partition)
            if (source := self._source(shares, owner)) is not None
        }

    def _lock(self, place: Place) -> asyncio.Lock:
        """Return what is held while a partition is healed; it lives as long as somebody heals it, or waits to."""
        return self._busy.setdefault(place, asyncio.Lock())

    # --- healing ------------------------------------------------------------------------------------------------

    async def _heal(self, place: Place, peers: Sequence[DeviceId], *, one_way: bool = False) -> None:
        """Take a partition's differences from these peers, tell them what they lack; or catch up with it."""
        if self._is_paused():
            return
        table, partition = place
        shares = self._shares[table]
        try:
            async with self._lock(place):
                if partition in shares.owned and not self._store.standing(table, partition).votes:
                    await self.taker.wait_turn()
                    # Who is silent has no voice, and is not waited for in each partition anew.
                    sources = {
                        owner: source
                        for owner, source in self._sources(shares, partition).items()
                        if owner not in self._comparing.silent
                    }
                    if await self._catching.catch_up(shares, table, partition, sources):
                        self.counts["caught_up"] += 1
                        if partition in shares.moving:
                            self._moves[table].note(asyncio.get_running_loop().time())
                for peer in in_turn(peers, partition):
                    source = self._source(shares, peer)
                    if source is not None and peer not in self._comparing.silent:
                        await self._take(shares, place, source, one_way=one_way)
        except RingChanged:
            self._awake.set()
        except DeviceFailed:
            raise
        except StorageError as error:
            log.warning("partition %d of table %r: %s", partition, table, error)

    async def _take(self, shares: Shares, place: Place, source: Source, *, one_way: bool) -> None:
        """Take from one peer what it holds and this device lacks, and tell it to come when it lacks something.

        Of two that differ, the one that holds fewer compares, unless it is paused: it lacks something for sure, and finds both what to
        take and what to tell of. Both would do the same work otherwise, the other one to take nothing. Who was told to come compares in
        any case, so that two do not send each other back and forth.
        """
        try:
            taken = await self._take_from(shares, place, source, if_behind=not one_way)
            if taken.is_for_them:
                if await self._tell(shares, place, source):
                    return
                taken = await self._take_from(shares, place, source, if_behind=False)
            if taken.is_more_here and (not one_way or taken.taken):
                await self._tell(shares, place, source)
        except NodeFailed as failure:
            table, partition = place
            log.info("partition %d of table %r is healed later: %s", partition, table, failure)
            self.counts["put_off"] += 1
            if partition in shares.owned and source.device.id in shares.others(partition):
                self._comparing.silent.add(source.device.id)

    async def _take_from(self, shares: Shares, place: Place, source: Source, *, if_behind: bool) -> Taken:
        table, partition = place
        if source.device.id in shares.others(partition):
            taken = await self.taker.take_registers(table, partition, source, if_behind=if_behind)
        else:
            taken = await self.taker.take_from_stranger(table, partition, source)
        if table in ROWS_OF:
            taken.add(await self.taker.take_rows(table, partition, source, if_behind=if_behind))
        return taken

    async def _tell(self, shares: Shares, place: Place, source: Source) -> bool:
        """Have a peer come for what it lacks; say whether it will. Raises NodeFailed."""
        if not shares.ids:
            return False
        self.counts["told"] += 1
        return await source.client.hint(*place, min(shares.ids), one_way=True)

    async def _give_back(self) -> None:
        """Give back what is held and not owned."""
        held_for_others = 0
        for table, shares in self._shares.items():
            held = await self._store.scan(self._store.held_partitions, table, shares.owned)
            for partition in held:
                if self._is_paused():
                    break
                sources = self._sources(shares, partition)
                done = await self._returning.give_back(shares, table, partition, sources)
                held_for_others += not done
        if not self._is_paused():
            self.held_for_others = held_for_others

    # --- what it says of itself ---------------------------------------------------------------------------------

    def figures(self) -> Sequence[Figure]:
        """Return how it is getting on."""
        taken, counts = self.taker.counts, self.counts
        return (
            Figure("passes", "Passes over all peers", counts["passes"], is_total=True),
            Figure("last_pass_s", "Seconds that the last pass took", self.last_pass_s),
            Figure("last_pass_us", "When the last pass ended; 0: none has", self.last_pass_us),
            Figure("paused", "Whether it is to take nothing for now", float(self._is_paused())),
            *self._told_of_copies(),
            Figure(
                "compared",
                "Messages that compared all partitions shared with a peer",
                self._comparing.messages,
                is_total=True,
            ),
            Figure("differing", "Partitions that differed from a peer's in the last pass", self.differing),
            Figure("silent", "Peers that did not answer the last time", len(self._comparing.silent)),
            Figure("waiting", "Partitions owned and not voted on", self.waiting),
            Figure("caught_up", "Partitions caught up with", counts["caught_up"], is_total=True),
            Figure("trusted", "Partitions voted on by an operator's word", counts["trusted"], is_total=True),
            Figure("taken", "Entries taken from peers", taken["taken"], is_total=True),
            Figure(
                "may_take_per_s",
                "Entries and rows that it may take a second now: fewer while calls wait, here or at its sources",
                self.taker.pace.per_s,
            ),
            Figure("taken_rows", "Rows taken from peers", taken["rows"], is_total=True),
            Figure("taken_bytes", "Bytes of bodies taken from peers", taken["bytes"], is_total=True),
            Figure("refused", "Copies that could not be taken", taken["refused"], is_total=True),
            Figure(
                "without_body", "Copies not taken for want of a body", taken["without_body"], is_total=True
            ),
            Figure("settled", "Keys settled for a promise in the way", taken["settled"], is_total=True),
            Figure("told", "Times that a peer was told what it lacks", counts["told"], is_total=True),
            Figure(
                "put_off", "Partitions that a peer could not be asked about", counts["put_off"], is_total=True
            ),
            Figure("hints", "Hints heard", counts["hints"], is_total=True),
            Figure("hints_waiting", "Hints not yet followed", sum(map(len, self._hints.values()))),
            Figure(
                "hints_dropped",
                "Hints above the limit, left to the next pass",
                counts["hints_dropped"],
                is_total=True,
            ),
            Figure(
                "held_for_others", "Partitions held and not owned after the last pass", self.held_for_others
            ),
            Figure(
                "released",
                "Entries and rows given back and let go of",
                self._returning.released,
                is_total=True,
            ),
        )

    def _told_of_copies(self) -> list[Figure]:
        """Return how many partitions are degraded and since when, as the last pass saw it."""
        *few, more = self._soundness.by_sound_copies()
        figures = [
            Figure(f"degraded_{sound}", f"Partitions here with {sound} sound copies, of more owners", count)
            for sound, count in enumerate(few)
        ]
        figures.append(
            Figure(
                "degraded_more", f"Partitions here with {len(few)} sound copies or more, of more owners", more
            )
        )
        since_us = self._soundness.oldest_us()
        age_s = 0.0 if since_us is None else max(0, self._read_us() - since_us) / 1e6
        figures.append(
            Figure(
                "oldest_divergence_s", "For how long a partition has not been the same at all owners", age_s
            )
        )
        return figures


async def _shares_here(ring: Ring, uuid: UUID) -> Shares:
    return shares_of(ring, uuid)
