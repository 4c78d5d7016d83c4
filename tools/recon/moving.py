"""Moving: how far the change of a ring is, how fast it goes and how long it will take.

Pure. Owns that arithmetic and its words. The slowest device says when the whole is done.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ring.device import Device, DeviceId
from ring.ring import Ring
from swiftlike.node_calls import CaughtUp
from tools.members import Silence
from tools.ring_builder.caught_up import told_by

Document = dict[str, Any]


def ring_progress(ring: Ring, answers: Sequence[tuple[Device, CaughtUp | Silence, bool]]) -> Document:
    """Describe a ring's change from what its owners to be say, and whether each of them is paused.

    What has to come are replicas to owners that were none before; those who stay are looked at, and told of only if they wait.
    """
    coming = replicas_coming(ring)
    devices = [
        _device_document(device, ring, answer, coming[device.id], paused=paused)
        for device, answer, paused in answers
    ]
    devices = [document for document in devices if document["moving"] or not document["done"]]
    moving, moved = sum(d["moving"] for d in devices), sum(d["moved"] for d in devices)
    lefts = [d["left_s"] for d in devices if not d["done"]]
    unknown = any(left is None for left in lefts)
    is_done = all(d["done"] for d in devices)
    return {
        "ring": ring.name,
        "epoch": ring.epoch,
        "moving_partitions": len(ring.moving_partitions),
        "replicas": moving,
        "caught_up": moved,
        "percent": round(100 * moved / moving, 1) if moving else (100.0 if is_done else 0.0),
        "per_s": round(sum(d["per_s"] for d in devices), 3),
        "left_s": None if unknown else max(lefts, default=0),
        "done": is_done,
        "answering": sum(not isinstance(answer, Silence) or answer.refused for _, answer, _ in answers),
        "devices": devices,
    }


def replicas_coming(ring: Ring) -> Counter[DeviceId]:
    """Count the replicas that move to each device."""
    coming: Counter[DeviceId] = Counter()
    for at, partition in enumerate(ring.moving_partitions):
        before = {row[at] for row in ring.moving_rows}
        coming.update(
            DeviceId(row[partition])
            for row in ring.rows
            if partition < len(row) and row[partition] not in before
        )
    return coming


def _device_document(
    device: Device, ring: Ring, answer: CaughtUp | Silence, coming: int, *, paused: bool
) -> Document:
    document: Document = {"device": str(device), "paused": paused, "moving": coming}
    if isinstance(answer, Silence):
        why = f"does not say: {answer.reason}"
        return {**document, "moved": 0, "per_s": 0.0, "left_s": None, "done": False, "why": why}
    told = told_by(device, ring, answer)
    left = answer.moving - answer.moved
    left_s = round(left / answer.per_s) if answer.per_s and not paused else None
    return {
        **document,
        "moved": max(0, coming - left),
        "per_s": round(answer.per_s, 3),
        "left_s": 0 if told is None else left_s,
        "done": told is None,
        "why": None if answer.epoch == ring.epoch else told,
    }


def sentence(progress: Document) -> str:
    """Say how a ring stands."""
    name = f"ring {progress['ring']}, epoch {progress['epoch']}"
    if not progress["moving_partitions"]:
        return f"{name}: nothing is moving"
    how = f"{name}: {progress['moving_partitions']} partitions move, "
    if progress["done"]:
        return how + "and all new owners have caught up: settle it"
    how += f"{progress['caught_up']} of {progress['replicas']} replicas are there ({progress['percent']} %)"
    if any(device["paused"] for device in progress["devices"]):
        return how + ", paused"
    left_s = progress["left_s"]
    return how + (f", about {duration(left_s)} left" if left_s is not None else ", time left not known yet")


def duration(seconds: float) -> str:
    """Write a time as people do: its two largest units."""
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    left = max(0, int(seconds))
    words: list[str] = []
    for size, unit in units:
        if left >= size or (unit == "s" and not words):
            words.append(f"{left // size} {unit}")
            left %= size
    return " ".join(words[:2])
