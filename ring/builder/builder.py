"""`RingBuilder`: the devices of a ring, the assignment of partitions to them, and the changes an operator makes to both.

Owns the rules of change: what is refused, when a partition may move, what an epoch is and who its ancestors are. Where
replicas go is decided in `plan`, `deal` and `rebalance`; bytes on disk are `file`'s. Reads no clock and opens nothing.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from ring.builder.board import NOBODY, Board, Mask, Owners, Reason
from ring.builder.deal import deal
from ring.builder.plan import Plan, make_plan, quotas
from ring.builder.rebalance import rebalance
from ring.builder.tree import Tree
from ring.device import DEVICE_ID_MAX, WEIGHT_MAX, Device, DeviceId, Partition, Tier
from ring.errors import BuilderError
from ring.file import REPLICAS_MAX, EncodedRing, RingFields, encode_ring
from ring.hashing import PART_POWER_MAX
from ring.ring import CHECKSUM_BYTES
from ring.ring import NOBODY as NOBODY_ON_DISK

Ids = npt.NDArray[np.uint32]
Address = tuple[str, int, str]
"""Host, port and name of a device."""

SECONDS_PER_HOUR: Final = 3600
HOURS_MAX: Final = 24.0 * 366 * 100
"""A century; a partition that rests longer is not at rest but forgotten."""
TIME_S_MAX: Final = 2**32 - 1
ID_GAP_MAX: Final = 65_536
"""How far above the next id a chosen one may lie: every id below it takes a place in the table."""
PLACE_MAX: Final = 10**9
"""Above any region or zone number."""
TOLERANCE: Final = 0.005
"""A device this share above its weight is told of: it is more than rounding."""


@dataclass(frozen=True, slots=True)
class BalanceNote:
    """A device that holds more or less than its weight asks for, and why."""

    device: Device
    share: float
    """What it holds, relative to what its weight asks for: 1.2 is a fifth more."""
    why: str

    def __str__(self) -> str:
        """Say it in a sentence."""
        more_or_less = "more" if self.share > 1 else "less"
        return f"{self.device} holds {abs(self.share - 1):.1%} {more_or_less} than its weight asks for: {self.why}"


@dataclass(frozen=True, slots=True)
class Rebalance:
    """What a rebalance did."""

    epoch: int
    moved: Mapping[Reason, int]
    """Replicas that were given a device, by reason; a first rebalance counts none."""
    partitions_moved: int
    held_back: int
    """Replicas on devices above their quota, or too close to another, that could not move yet: their partitions moved
    within min_part_hours, or another of their replicas moved just now."""
    notes: tuple[BalanceNote, ...]

    @property
    def replicas_moved(self) -> int:
        """Count the replicas that were given a device."""
        return sum(self.moved.values())


@dataclass(slots=True)
class RingBuilder:
    """A ring in the making. Every method either does what it says or raises BuilderError and changes nothing."""

    id: UUID
    name: str
    part_power: int
    replicas: float
    min_part_hours: float
    seed: int = 0
    overload: float = 0.0
    devices: list[Device | None] = field(default_factory=list)
    """Indexed by id; None is a hole, whose id is not used again."""
    removed: set[DeviceId] = field(default_factory=set)
    """Devices to be emptied at the next rebalance, or emptied and remembered until their partitions are settled."""
    owners: Ids = field(default_factory=lambda: np.empty((0, 0), np.uint32))
    """One row a replica, one column a partition; NOBODY_ON_DISK where the last row ends. Empty before the first rebalance."""
    moving_partitions: Ids = field(default_factory=lambda: np.empty(0, np.uint32))
    moving_rows: Ids = field(default_factory=lambda: np.empty((0, 0), np.uint32))
    """The previous owners of the moving partitions, one column each."""
    moved_at_s: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    """Per partition: when one of its replicas was last moved, in seconds since 1970; 0 for never."""
    lineage: bytes = b""
    """The checksums of all rings so far, 16 bytes each; the last is the current epoch's."""
    _claimed: dict[Address | UUID, DeviceId] = field(init=False, repr=False, compare=False)
    """Whose each address and uuid is, removed devices that are still remembered included."""

    def __post_init__(self) -> None:
        """Refuse a ring that cannot be."""
        self._claimed = _claimed(self.devices)
        if not 0 <= self.part_power <= PART_POWER_MAX:
            raise BuilderError(f"a part power of {self.part_power} is not between 0 and {PART_POWER_MAX}")
        _check_replicas(self.replicas)
        _check_hours(self.min_part_hours)

    # What is

    @property
    def epoch(self) -> int:
        """The number of rings made so far; 0 before the first."""
        return len(self.lineage) // CHECKSUM_BYTES

    @property
    def partitions(self) -> int:
        """Count the partitions."""
        return 1 << self.part_power

    @property
    def is_moving(self) -> bool:
        """Whether partitions are on their way, so that only `settle` or `undo` may come next."""
        return bool(len(self.moving_partitions))

    def present(self) -> list[Device]:
        """List the devices that are neither removed nor holes."""
        return [device for device in self.devices if device is not None and device.id not in self.removed]

    def device(self, device_id: int) -> Device:
        """Return a device that is present."""
        device = self.devices[device_id] if 0 <= device_id < len(self.devices) else None
        if device is None or device.id in self.removed:
            raise BuilderError(f"there is no device d{device_id}; list the devices to see which there are")
        return device

    def loads(self) -> npt.NDArray[np.int64]:
        """Count the partition-replicas of each device, by id."""
        held = self.owners[self.owners != NOBODY_ON_DISK]
        return np.bincount(held, minlength=len(self.devices))

    def owners_of(self, partition: Partition) -> tuple[Device, ...]:
        """Return the devices that hold a partition, in replica order."""
        held = (self.devices[int(owner)] for owner in self.owners[:, partition] if owner != NOBODY_ON_DISK)
        return tuple(device for device in held if device is not None)

    def seconds_to_wait(self, now_s: int) -> int:
        """Tell how long the partition that moved last must rest yet."""
        if not len(self.moved_at_s):
            return 0
        return max(0, int(self.moved_at_s.max()) + math.ceil(self.min_part_hours * SECONDS_PER_HOUR) - now_s)

    # Changes to the devices and the settings; a rebalance brings them into effect

    def add(self, device: Device) -> None:
        """Add a device under its id, which is `next_id()` unless an old one is to be used again."""
        self._check_device(device)
        if device.id < len(self.devices) and self.devices[device.id] is not None:
            raise BuilderError(f"there is a device d{device.id} already; leave the id out to get a new one")
        if device.id > len(self.devices) + ID_GAP_MAX:
            raise BuilderError(
                f"id {device.id} is more than {ID_GAP_MAX} above {len(self.devices)}, the next one; leave it out to get that"
            )
        self.devices.extend([None] * (device.id + 1 - len(self.devices)))
        self._put(device)

    def next_id(self) -> DeviceId:
        """Return an id that no device has had."""
        return DeviceId(len(self.devices))

    def remove(self, device_id: DeviceId) -> None:
        """Mark a device as gone: the next rebalance empties it at once, whatever min_part_hours says."""
        device = self.device(device_id)
        if device_id in self.owners or device_id in self.moving_rows:
            self.devices[device_id] = replace(device, weight=0.0)
            self.removed.add(device_id)
        else:
            self._forget(device_id)

    def update(self, device: Device) -> None:
        """Replace what is known of a device: its weight, place, address, meta or uuid."""
        self.device(device.id)
        self._check_device(device)
        self._put(device)

    def set_replicas(self, replicas: float) -> None:
        """Change the replica count at the next rebalance."""
        _check_replicas(replicas)
        self.replicas = replicas

    def set_overload(self, overload: float) -> None:
        """Allow devices to hold up to `overload` (0.1: a tenth) above their weight where dispersion gains by it."""
        if not 0 <= overload < math.inf:
            raise BuilderError(
                f"an overload of {overload:g} is below zero; 0.1 or 10% lets a device hold a tenth more"
            )
        self.overload = overload

    def set_min_part_hours(self, hours: float) -> None:
        """Change how long a partition rests after a move."""
        _check_hours(hours)
        self.min_part_hours = hours

    def pretend_min_part_hours_passed(self) -> None:
        """Let every partition move again at the next rebalance."""
        self.moved_at_s[:] = 0

    # Changes to the assignment; each makes the next epoch

    def rebalance(self, now_s: int, seed: int | None = None) -> Rebalance:
        """Bring the assignment as near to what devices, weights and domains ask for as one move a partition can.

        Same input, same seed, same ring. Replicas of removed devices move in any case; others only when their partition
        has rested for min_part_hours, and one of a partition at a time. The outcome is the next epoch, in which every
        partition whose owners changed also names all of its previous ones; where nothing changed, there is none.
        """
        if self.is_moving:
            raise BuilderError(
                f"{len(self.moving_partitions)} partitions are still moving; settle the ring once they have arrived"
            )
        _check_time(now_s)
        if seed is not None and seed < 0:
            raise BuilderError(f"a seed of {seed} is below zero; any whole number from 0 will do")
        self._check_enough_devices()
        first = not self.owners.size
        tree = Tree.of([device for device in self.devices if device is not None])
        plan = make_plan(tree, self.slots_wanted / self.partitions, self.overload)
        rng = np.random.default_rng([self.seed if seed is None else seed, self.epoch])
        if first:
            quota = quotas(
                tree, plan, self.partitions, self.slots_wanted, np.zeros(len(tree.devices), np.int64)
            )
            self._adopt(_to_ids(tree, deal(tree, quota, self.partitions, rng)), now_s)
            return Rebalance(self.epoch, dict.fromkeys(Reason, 0), 0, 0, self._notes(tree, plan))
        board = self._board(tree, plan, now_s)
        outcome = rebalance(board, rng)
        self._adopt(_to_ids(tree, board.owners), now_s)
        moving = len(self.moving_partitions)
        return Rebalance(self.epoch, outcome.moved, moving, outcome.held_back, self._notes(tree, plan))

    def settle(self) -> int:
        """End all moves: previous owners no longer count. Returns how many partitions were moving."""
        settled = len(self.moving_partitions)
        if not settled:
            raise BuilderError("nothing is moving; there is nothing to settle")
        self._end_moves()
        self._publish()
        return settled

    def increase_part_power(self) -> None:
        """Split every partition in two; both halves stay where it is, so nothing moves."""
        if self.is_moving:
            raise BuilderError(
                "partitions are still moving; settle the ring before its partition power is increased"
            )
        if self.part_power == PART_POWER_MAX:
            raise BuilderError(f"the part power is {PART_POWER_MAX} already, the largest there is")
        self.part_power += 1
        if self.owners.size:
            self.owners = np.repeat(self.owners, 2, axis=1)
            self.moved_at_s = np.repeat(self.moved_at_s, 2)
            self._publish()

    def undo_to(self, earlier: "RingBuilder", now_s: int) -> None:
        """Return to an earlier state of this builder, as a new epoch if any partition changes its owners by it.

        Partitions that were moving go back to the owners that still vote on them, and so are settled at once.
        """
        if earlier.id != self.id:
            raise BuilderError(
                "that state is of another builder; undo takes an earlier state of the same one"
            )
        if earlier.part_power != self.part_power:
            raise BuilderError(
                "a partition power increase cannot be undone; it moved nothing, so there is no need to"
            )
        if self.owners.size and not earlier.owners.size:
            raise BuilderError(
                "the first ring cannot be undone, since data may be on it; create another builder instead"
            )
        _check_time(now_s)
        voters = self._voters()
        devices, removed = self._devices_of(earlier, set(map(int, np.unique(voters))) - {NOBODY_ON_DISK})
        self.devices, self.removed = devices, removed
        self._claimed = _claimed(self.devices)
        self.replicas, self.overload, self.min_part_hours = (
            earlier.replicas,
            earlier.overload,
            earlier.min_part_hours,
        )
        if self.owners.size:
            self.owners = voters
            self._adopt(earlier.owners, now_s)

    def _devices_of(
        self, earlier: "RingBuilder", voting: set[int]
    ) -> tuple[list[Device | None], set[DeviceId]]:
        """Return an earlier state's devices and removed ones, such that those which vote now stay known.

        A device keeps the uuid that it has now, since undo does not turn back what is on a disk.
        """
        # Ids that a ring has named are not used again.
        named = len(self.devices) if self.epoch > earlier.epoch else len(earlier.devices)
        devices: list[Device | None] = [None] * max(named, len(earlier.devices))
        removed = set(earlier.removed)
        for device in filter(None, earlier.devices):
            now = self.devices[device.id] if device.id < len(self.devices) else None
            devices[device.id] = replace(device, uuid=now.uuid) if now and now.uuid else device
        for number in voting:
            if devices[number] is None:
                voter = self.devices[number]
                assert voter is not None, "an owner is no hole"
                devices[number] = replace(voter, weight=0.0)
                removed.add(DeviceId(number))
        claimed = _claimed(devices)
        for device in filter(None, devices):
            for claim in _claims(device):
                if claimed[claim] != device.id:
                    raise BuilderError(
                        f"d{device.id} and d{claimed[claim]} would be one disk, which then counts twice;"
                        " change the devices by hand instead"
                    )
        return devices, removed

    def publish(self) -> EncodedRing:
        """Return the current ring's bytes; if devices were bound or described anew since it was made, as a new epoch."""
        if not self.owners.size:
            raise BuilderError("there is no ring yet; add devices and rebalance first")
        return self._publish()

    # How

    @property
    def slots_wanted(self) -> int:
        """The number of partition-replicas that the replica count asks for, to the nearest whole one."""
        return round(self.replicas * self.partitions)

    def _check_enough_devices(self) -> None:
        usable = sum(device.weight > 0 for device in self.present())
        if usable < math.ceil(self.slots_wanted / self.partitions):
            raise BuilderError(
                f"{self.replicas:g} replicas need {math.ceil(self.replicas)} devices with a weight above zero and there are "
                f"{usable}; add devices or set_replicas {max(usable, 1)}"
            )

    def _check_device(self, device: Device) -> None:
        """Refuse a device that cannot be, or that another one is already."""
        if not 0 <= device.id <= DEVICE_ID_MAX:
            raise BuilderError(f"a device id of {device.id} is not between 0 and {DEVICE_ID_MAX}")
        if not 0 <= device.weight <= WEIGHT_MAX:
            raise BuilderError(
                f"a weight of {device.weight:g} is not between 0 and {WEIGHT_MAX:g}; 0 drains the device"
            )
        if not 0 < device.port < 2**16:
            raise BuilderError(f"port {device.port} is not between 1 and 65535")
        if not (0 <= device.region < PLACE_MAX and 0 <= device.zone < PLACE_MAX):
            raise BuilderError(
                f"region {device.region}, zone {device.zone}: both must be between 0 and {PLACE_MAX - 1}"
            )
        if not device.host or not device.name or "/" in device.name or device.name in (".", ".."):
            raise BuilderError(
                "a device needs a host and a name, and no slash in the name: it is that of a directory"
            )
        for text in (device.host, device.name, device.meta):
            if not text.isprintable():
                raise BuilderError(f"{text!r} holds characters that cannot be printed")
        for claim in _claims(device):
            other = self._claimed.get(claim, device.id)
            if other == device.id:
                continue
            leaving = ", which is leaving: rebalance and settle first" if other in self.removed else ""
            if isinstance(claim, UUID):
                raise BuilderError(
                    f"d{other} has the uuid {claim} already{leaving}; each device has one of its own"
                )
            raise BuilderError(
                f"{device.host}:{device.port}/{device.name} is in the ring already, as d{other}{leaving}"
            )

    def _put(self, device: Device) -> None:
        """Enter a device under its id, in the stead of what was known of it."""
        self._forget(device.id)
        self.devices[device.id] = device
        self._claimed |= _claimed([device])

    def _forget(self, device_id: DeviceId) -> None:
        """Leave a hole where a device was."""
        device, self.devices[device_id] = self.devices[device_id], None
        for claim in _claims(device) if device else ():
            del self._claimed[claim]

    def _board(self, tree: Tree, plan: Plan, now_s: int) -> Board:
        """Lay out the assignment for a change: removed devices emptied, rows as the replica count asks for."""
        rows = max(len(self.owners), -(-self.slots_wanted // self.partitions))
        owners = np.full((rows, self.partitions), NOBODY, np.int32)
        owners[: len(self.owners)] = _to_places(tree, self.owners)
        gone: Mask = np.array([device.id in self.removed for device in tree.devices] + [False])[owners]
        owners[gone] = NOBODY
        wanted = np.arange(owners.size).reshape(owners.shape) < self.slots_wanted
        loads = np.bincount(owners[owners != NOBODY], minlength=len(tree.devices))
        quota = quotas(tree, plan, self.partitions, self.slots_wanted, loads)
        rests_until_s = self.moved_at_s + self.min_part_hours * SECONDS_PER_HOUR
        resting: Mask = (self.moved_at_s > 0) & (rests_until_s > now_s)
        lost: Mask = np.any(gone, axis=0)
        return Board.of(tree, plan, quota, owners, wanted, resting, lost)

    def _adopt(self, owners: Ids, now_s: int) -> None:
        """Make `owners` the assignment of the next epoch; what they change moves."""
        before = self.owners
        self.owners = owners
        if not before.size:
            self.moved_at_s = np.zeros(self.partitions, np.uint32)
        else:
            changed = np.flatnonzero(_sets_differ(before, owners))
            self.moved_at_s[changed] = now_s
            self.moving_partitions = changed.astype(np.uint32)
            self.moving_rows = _top(before[:, changed])
        if not self.is_moving:
            self._end_moves()
        self._publish()

    def _end_moves(self) -> None:
        """Forget previous owners, and the removed devices that nobody names any more."""
        self.moving_partitions, self.moving_rows = self.moving_partitions[:0], self.moving_rows[:, :0]
        for device_id in list(self.removed):
            if device_id not in self.owners:
                self._forget(device_id)
                self.removed.discard(device_id)

    def _voters(self) -> Ids:
        """Return the owners whose word counts for each partition: the previous ones while it is moving."""
        rows = max(len(self.owners), len(self.moving_rows))
        voters = np.full((rows, self.owners.shape[1]), NOBODY_ON_DISK, np.uint32)
        voters[: len(self.owners)] = self.owners
        voters[:, self.moving_partitions] = NOBODY_ON_DISK
        voters[: len(self.moving_rows), self.moving_partitions] = self.moving_rows
        return voters

    def _publish(self) -> EncodedRing:
        """Encode the ring; if it is not the one of the current epoch, it is the next one's."""
        if self.epoch:
            ring = self._encode(self.epoch, self.lineage[:-CHECKSUM_BYTES])
            if ring.checksum == self.lineage[-CHECKSUM_BYTES:]:
                return ring
        ring = self._encode(self.epoch + 1, self.lineage)
        self.lineage += ring.checksum
        return ring

    def _encode(self, epoch: int, ancestors: bytes) -> EncodedRing:
        slots = int((self.owners != NOBODY_ON_DISK).sum())
        last = slots - (len(self.owners) - 1) * self.partitions
        return encode_ring(
            RingFields(
                name=self.name,
                builder_id=self.id,
                epoch=epoch,
                part_power=self.part_power,
                replicas=slots / self.partitions,
                devices=self.devices,
                rows=[row.data for row in (*self.owners[:-1], self.owners[-1, :last])],
                ancestors=ancestors,
                moving_partitions=self.moving_partitions.data,
                moving_rows=[row.data for row in self.moving_rows] if self.is_moving else [],
            )
        )

    def _notes(self, tree: Tree, plan: Plan) -> tuple[BalanceNote, ...]:
        """Name the devices that neither their weight nor the overload explains."""
        wanted, weighted = plan.wanted[Tier.DEVICE], plan.weighted
        heavy = np.flatnonzero(weighted > 1 + TOLERANCE)
        light = np.flatnonzero(
            (weighted > 0) & (wanted > weighted * (1 + self.overload) + TOLERANCE * weighted)
        )
        others = ", ".join(f"d{tree.devices[place].id}" for place in heavy[:3]) + (
            ", ..." if len(heavy) > 3 else ""
        )
        notes = [
            BalanceNote(
                tree.devices[place],
                float(wanted[place] / weighted[place]),
                f"it asks for {weighted[place]:.2f} replicas of every partition, and a device can hold one",
            )
            for place in heavy
        ]
        notes += [
            BalanceNote(
                tree.devices[place],
                float(wanted[place] / weighted[place]),
                f"it takes what {others} cannot hold",
            )
            for place in light
        ]
        return tuple(notes)


def _check_replicas(replicas: float) -> None:
    if not 1 <= replicas <= REPLICAS_MAX:
        raise BuilderError(f"a replica count of {replicas:g} is not between 1 and {REPLICAS_MAX:g}")


def _check_hours(hours: float) -> None:
    if not hours >= 0:
        raise BuilderError(
            f"min_part_hours of {hours:g} is below zero; 0 lets partitions move at every rebalance"
        )
    if hours > HOURS_MAX:
        raise BuilderError(f"min_part_hours of {hours:g} is above {HOURS_MAX:g}, a century; give fewer")


def _check_time(now_s: int) -> None:
    if not 0 < now_s <= TIME_S_MAX:
        raise BuilderError(f"the clock says {now_s} seconds since 1970; set it")


def _claims(device: Device) -> Iterator[Address | UUID]:
    """Yield what no two devices may share."""
    yield (device.host, device.port, device.name)
    if device.uuid is not None:
        yield device.uuid


def _claimed(devices: Iterable[Device | None]) -> dict[Address | UUID, DeviceId]:
    return {claim: device.id for device in devices if device for claim in _claims(device)}


def _to_places(tree: Tree, ids: Ids) -> Owners:
    """Translate device ids into places in the tree."""
    numbers = np.array([device.id for device in tree.devices], np.int64)
    places = np.full(int(numbers.max(initial=0)) + 2, NOBODY, np.int32)
    places[numbers] = np.arange(len(numbers), dtype=np.int32)
    return places[
        np.minimum(ids, len(places) - 1)
    ]  # NOBODY_ON_DISK is beyond all ids, and so is the last element


def _to_ids(tree: Tree, places: Owners) -> Ids:
    """Translate places in the tree into device ids, leaving out rows that nobody is in."""
    numbers = np.array([device.id for device in tree.devices] + [NOBODY_ON_DISK], np.uint32)
    return _top(numbers[places])


def _top(ids: Ids) -> Ids:
    """Leave out the rows at the bottom that nobody is in."""
    filled = int((ids != NOBODY_ON_DISK).any(axis=1).sum())
    return np.ascontiguousarray(ids[:filled])


def _sets_differ(before: Ids, after: Ids) -> Mask:
    """Tell for each partition whether its owners are other ones, whatever their order."""
    rows = max(len(before), len(after))
    padded = [np.full((rows, before.shape[1]), NOBODY_ON_DISK, np.uint32) for _ in range(2)]
    for to, ids in zip(padded, (before, after), strict=True):
        to[: len(ids)] = ids
        to.sort(axis=0)
    differ: Mask = (padded[0] != padded[1]).any(axis=0)
    return differ
