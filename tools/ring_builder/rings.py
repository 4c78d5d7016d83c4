"""The commands that make a ring or the next epoch of it: create, the settings, rebalance, settle, undo, write_ring and kin.

Each decides only what is said and written; what becomes of the ring is the builder's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import click

from ring.builder import RingBuilder
from ring.builder.builder import Ids
from ring.builder.file import previous_state, save_undone
from ring.builder.report import Moves, moves
from ring.device import Device
from ring.errors import RingError
from ring.hashing import PART_POWER_MAX
from tools.ring_builder.caught_up import shortened, who_waits
from tools.ring_builder.documents import Document, devices_document, moves_document, rebalance_document
from tools.ring_builder.grammar import HOURS, command, pass_session
from tools.ring_builder.memory import INCREASE_SLOT_BYTES, REBALANCE_SLOT_BYTES, check_memory
from tools.ring_builder.notation import parse_overload
from tools.ring_builder.session import Exit, Session, remembering_nothing
from tools.ring_builder.tables import clock, show_lines, show_moves, show_rebalance, sign_of_life

DISTRIBUTE: Final = "copy the ring to all hosts; when the devices have caught up, settle"
SURPRISING_OVERLOAD: Final = 1.0


@command("create")
@click.argument("power", type=click.IntRange(0, PART_POWER_MAX))
@click.argument("replicas", type=float)
@click.argument("min_part_hours", type=HOURS)
@pass_session
def create(session: Session, power: int, replicas: float, min_part_hours: float) -> Exit:
    """Create a builder of 2^POWER partitions."""
    with session.locked_new():
        if session.ring_path.exists():
            raise RingError(
                f"{session.ring_path} exists and a cluster may be running by it; make its builder with write_builder, or move"
                " it away"
            )
        builder = RingBuilder(uuid4(), session.stem, power, replicas, min_part_hours)
        session.save(builder)
    document = {"ring": builder.name, "builder_id": str(builder.id), "partitions": builder.partitions}
    return session.say(
        document,
        lambda: show_lines(
            f"{session.builder_path} is created: {builder.partitions} partitions, {replicas:g} replicas; add devices, then"
            " rebalance"
        ),
    )


# Settings


def _set(session: Session, name: str, value: float, sentence: str, warning: str | None = None) -> Exit:
    """Save a builder with one setting changed; the setter is the builder's own."""
    with session.locked() as builder:
        getattr(builder, f"set_{name}")(value)
        session.save(builder)
    if warning:
        session.warn(warning)
    return session.say({name: value}, lambda: show_lines(sentence))


@command("set_replicas")
@click.argument("replicas", type=float)
@pass_session
def set_replicas(session: Session, replicas: float) -> Exit:
    """Change the replica count; 3.25 gives a quarter of the partitions a fourth."""
    return _set(
        session, "replicas", replicas, f"{replicas:g} replicas are wanted; rebalance brings them about"
    )


@command("set_overload")
@click.argument("overload")
@pass_session
def set_overload(session: Session, overload: str) -> Exit:
    """Let devices hold more than their weight asks for, by 0.1 or 10%, where replicas then stand farther apart."""
    factor = parse_overload(overload)
    meant_percent = factor > SURPRISING_OVERLOAD and not overload.endswith("%")
    return _set(
        session,
        "overload",
        factor,
        f"overload is {factor:.2%}; rebalance brings it into effect",
        f"an overload of {overload} is {factor:.0%}; if you meant {overload}%, set it with the %"
        if meant_percent
        else None,
    )


@command("set_min_part_hours")
@click.argument("hours", type=HOURS)
@pass_session
def set_min_part_hours(session: Session, hours: float) -> Exit:
    """Change how many hours a partition rests after one of its replicas has moved."""
    return _set(session, "min_part_hours", hours, f"a partition rests for {hours:g} hours after a move")


@command("pretend_min_part_hours_passed")
@pass_session
def pretend_min_part_hours_passed(session: Session) -> Exit:
    """Let every partition move at the next rebalance, however lately it has moved."""
    with session.locked() as builder:
        builder.pretend_min_part_hours_passed()
        session.save(builder, remembering_nothing)
    return session.say(
        {"seconds_to_wait": 0}, lambda: show_lines("every partition may move at the next rebalance")
    )


# Epochs


@dataclass(frozen=True, slots=True)
class Before:
    """What a change of the assignment is compared with."""

    owners: Ids
    devices: list[Device | None]
    epoch: int

    @classmethod
    def of(cls, builder: RingBuilder) -> "Before":
        """Note how a builder is now; its owners are replaced by a change, never edited."""
        return cls(builder.owners, list(builder.devices), builder.epoch)

    def moves_to(self, builder: RingBuilder) -> Moves:
        """Compare with how it is after a change."""
        known = list(builder.devices) + [None] * (len(self.devices) - len(builder.devices))
        for number, device in enumerate(self.devices):
            known[number] = known[number] or device
        return moves(self.owners, builder.owners, known)


@command("rebalance")
@click.option(
    "--seed", type=click.IntRange(0, 2**63), help="Of the random choices, instead of the builder's own."
)
@click.option("--dry-run", is_flag=True, help="Tell what would move, from and to where, and write nothing.")
@pass_session
def rebalance(session: Session, seed: int | None, dry_run: bool) -> Exit:
    """Place partitions as devices and weights ask for, and write the builder and the ring beside it.

    Refused while the ring of the last epoch is not written (exit code 2). Exit code 1, with nothing written, when nothing
    has to move, when what has to move must rest yet, or when the last rebalance is not settled; and, as wherever a ring is
    written, when devices in it are unbound.
    """
    with session.locked_with_ring(then="rebalance") as builder:
        if builder.is_moving:
            return session.refuse(
                f"{len(builder.moving_partitions)} partitions are still moving, so nothing was rebalanced; settle once the"
                " devices have caught up, then rebalance; or undo, if a new owner died and never will",
            )
        check_memory(builder, builder.partitions, REBALANCE_SLOT_BYTES)
        before, first = Before.of(builder), not builder.owners.size
        with sign_of_life(f"rebalancing {builder.partitions} partitions"):
            outcome = builder.rebalance(session.now_s, seed)
            moved = before.moves_to(builder)
        if not first and not outcome.partitions_moved:
            return session.refuse(_why_nothing_moves(session, builder, before, outcome.held_back))
        if not dry_run:
            session.save_with_ring(builder)
        document = {
            **rebalance_document(builder, outcome, moved),
            "written": not dry_run,
            "ring_file": str(session.ring_path),
        }
    return session.say(document, lambda: _show_rebalance(document, first=first))


def _why_nothing_moves(session: Session, builder: RingBuilder, before: Before, held_back: int) -> str:
    wait_s = builder.seconds_to_wait(session.now_s)
    if held_back and wait_s:
        return (
            f"{held_back} replicas must move, but their partitions rest for min_part_hours, {clock(wait_s)} more; nothing was"
            " written: wait, or pretend_min_part_hours_passed"
        )
    if held_back:
        return f"{held_back} replicas are not where they should be and no move helps; nothing was written: see validate"
    if builder.epoch != before.epoch:
        return "nothing has to move, so nothing was written; devices were changed, and write_ring tells the cluster"
    return "nothing has to move, so nothing was written"


def _show_rebalance(document: Document, *, first: bool) -> None:
    show_rebalance(document)
    if not document["written"]:
        if not first:
            show_moves(document)
        show_lines("this was a preview: nothing was written")
        return
    show_lines(f"{document['ring_file']} is written")
    show_lines(f"next: {'copy the ring to all hosts' if first else DISTRIBUTE}")


@command("settle")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="This host's TOML file: how the devices are reached that are asked whether they have caught up.",
)
@click.option("--force", is_flag=True, help="Ask nobody: you know that every new owner has caught up.")
@pass_session
def settle(session: Session, config: Path | None, force: bool) -> Exit:
    """End the moves of the last rebalance, once the devices have caught up, and write the ring that says so.

    The new owners are asked; while one of them has not caught up, or does not say, nothing is written (exit code 1). From then
    on the previous owners of what moved are not asked any more: what a new owner has not taken by then may be missed.
    """
    with session.locked_with_ring(then="settle") as builder:
        if not builder.is_moving:
            return session.refuse("nothing is moving, so there is nothing to settle and nothing was written")
        if force:
            session.warn(
                "settled on your word: no device was asked, and what a new owner has not taken yet may be missed by reads"
            )
        elif config is None:
            raise RingError(
                "whether the new owners have caught up, the devices must say: name this host's file with --config; or settle"
                " on your own word with --force"
            )
        else:
            ring = session.ring_beside()
            assert ring is not None, "settling is refused while the ring of this epoch is not written"
            if waiting := who_waits(ring, config):
                return session.refuse(
                    f"nothing was written: {shortened(waiting)}; wait until all have caught up, then settle; or undo"
                )
        settled = builder.settle()
        session.save_with_ring(builder, remembering_nothing)
    return say_epoch(session, builder, f"{settled} partitions are settled", {"partitions_settled": settled})


@command("undo")
@pass_session
def undo(session: Session) -> Exit:
    """Take back the last change, as a new epoch if partitions move by it. The last ten can be taken back.

    Settling, binding, write_ring and pretend_min_part_hours_passed are not changes in this sense: undo takes back the one
    before them.
    """
    with session.locked_with_ring() as builder:
        before, was_moving, ids = (
            Before.of(builder),
            builder.is_moving,
            {device.id for device in builder.present()},
        )
        builder.undo_to(previous_state(session.builder_path), session.now_s)
        moved = before.moves_to(builder)
        if builder.owners.size:
            session.save_with_ring(builder, save_undone)
        else:
            session.save(builder, save_undone)
    returned = [device for device in builder.present() if device.id not in ids and device.uuid is not None]
    document = {
        "epoch": builder.epoch,
        **moves_document(moved),
        "moving_partitions": len(builder.moving_partitions),
        "devices_returned": devices_document(returned),
    }
    return session.say(
        document,
        lambda: _show_undo(document, _after_undo(before, builder, returned, was_moving=was_moving)),
    )


def _after_undo(
    before: Before, builder: RingBuilder, returned: list[Device], *, was_moving: bool
) -> list[str]:
    """Tell what is to be done with the outcome of an undo."""
    told = [
        f"{device} is back under uuid {device.uuid}; if its disk was wiped since, bind d{device.id} anew, then write_ring"
        for device in returned
    ]
    if builder.is_moving:
        return [*told, f"next: {DISTRIBUTE}"]
    if was_moving:
        return [
            *told,
            "its partitions are where they were before it, so the ring is settled at once and there is nothing to settle",
            "next: copy the ring to all hosts",
        ]
    return [*told, "next: copy the ring to all hosts"] if builder.epoch != before.epoch else told


def _show_undo(document: Document, further: list[str]) -> None:
    show_lines(
        f"the last change is taken back: epoch {document['epoch']}, {document['replicas_moved']} replicas of"
        f" {document['partitions_moved']} partitions move, {document['percent_of_cluster']:.2f}% of the cluster"
    )
    if document["partitions_moved"]:
        show_moves(document)
    show_lines(*further)


@command("write_ring")
@pass_session
def write_ring(session: Session) -> Exit:
    """Write the ring beside the builder once more, as a new epoch if devices were bound or described anew."""
    with session.locked_with_ring() as builder:
        session.save_with_ring(builder, remembering_nothing)
    return say_epoch(session, builder, "the ring is written", {})


@command("increase_partition_power")
@pass_session
def increase_partition_power(session: Session) -> Exit:
    """Split every partition in two; both halves stay where it is, so no data moves. It cannot be undone."""
    with session.locked_with_ring(then="increase_partition_power") as builder:
        if builder.owners.size:
            check_memory(builder, 2 * builder.partitions, INCREASE_SLOT_BYTES)
        builder.increase_part_power()
        if builder.owners.size:
            session.save_with_ring(builder)
        else:
            session.save(builder)
    return say_epoch(
        session,
        builder,
        f"there are {builder.partitions} partitions (2^{builder.part_power}) now",
        {"part_power": builder.part_power, "partitions": builder.partitions},
    )


def say_epoch(session: Session, builder: RingBuilder, sentence: str, document: Document) -> Exit:
    """Say what was done, and which epoch is written now."""
    ring = f" in {session.ring_path}" if builder.owners.size else ""
    return session.say(
        {"epoch": builder.epoch, **document, "ring_file": str(session.ring_path) if ring else None},
        lambda: show_lines(f"{sentence}: epoch {builder.epoch}{ring}"),
    )


def _needless(name: str, help_text: str) -> click.Command:
    """Make a command of Swift's that has nothing to do here, so that scripts which call it go on."""
    sentence = (
        f"{name} is not needed: increase_partition_power is one step, since the partition is no part of where a device keeps"
        " an object"
    )

    @command(name, help=help_text)
    @pass_session
    def answer(session: Session) -> Exit:
        return session.say({"message": sentence}, lambda: show_lines(sentence))

    return answer


NEEDLESS: Final = tuple(
    _needless(f"{step}_increase_partition_power", "Not needed here; says so.")
    for step in ("prepare", "finish", "cancel")
)
