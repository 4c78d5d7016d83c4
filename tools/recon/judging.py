"""Judging: what the devices said becomes one document, with a sentence for everything that is not as it should be.

Pure. Owns the names of the document's fields, which scripts rely on (fields are added, never renamed), and what counts as not well.
The tables are drawn from the document.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ring.ring import Ring
from swiftlike.node_calls import CaughtUp
from tools.members import Member, Silence
from tools.recon.copies import sound_copies
from tools.recon.seeing import Seen

Document = dict[str, Any]

SKEW_S: Final = 5.0
"""Between the clocks of two hosts. From a minute on devices refuse what a proxy writes."""
LATE_S: Final = 60.0
"""By which a due object may stay."""
PASS_S: Final = 600.0
"""Within which a replicator ends a pass: it rests for half a minute between two (five at the most), and one that heals much takes longer."""
MICROS: Final = 1_000_000

LAST_PASS: Final = {
    "replicator": "last_pass_us",
    "auditor": "last_pass_us",
    "expirer": "last_walk_us",
    "mender": "last_walk_us",
    "reaper": "last_walk_us",
    "reclaimer": "last_walk_us",
    "compactor": "last_walk_us",
}
"""The figure that says when a job was last through with all there is. The updater's stands among the debts."""

Answers = Sequence[tuple[Member, Seen | Silence]]


def judge(rings: Mapping[bytes, Ring], answers: Answers, now_us: int) -> Document:
    """Return the document of a whole cluster."""
    here = {ring.name: ring for ring in rings.values()}
    devices = [
        device_document(member, seen, here, now_us)
        if isinstance(seen, Seen)
        else silent_document(member, seen)
        for member, seen in answers
    ]
    seen = [each for _, each in answers if isinstance(each, Seen)]
    degraded = degraded_by_ring(rings, answers)
    whole: Document = {
        "devices": devices,
        "answering": len(seen),
        "rings": {
            name: {"epoch": ring.epoch, "moving_partitions": len(ring.moving_partitions)}
            for name, ring in here.items()
        },
        "degraded": degraded,
        "oldest_divergence_s": max(
            (device["oldest_divergence_s"] for device in devices if device["answers"]), default=0.0
        ),
        "clock_skew_s": skew_s(seen),
    }
    warnings = [
        *_of_cluster(whole, seen),
        *(f"{d['device']} {each}" for d in devices for each in d["warnings"]),
    ]
    return {**whole, "warnings": warnings, "well": not warnings}


def silent_document(member: Member, silence: Silence) -> Document:
    """Describe a device that does not answer."""
    return {
        "device": str(member),
        "answers": False,
        "why": silence.reason,
        "warnings": [f"does not answer ({silence.reason}): start it, or look at its host and network"],
    }


def device_document(member: Member, seen: Seen, here: Mapping[str, Ring], now_us: int) -> Document:
    """Describe a device, and say what of it is not well."""
    health, stats = seen.health, seen.stats
    jobs: Mapping[str, Mapping[str, float]] = stats.get("jobs", {})
    debts: Mapping[str, int] = stats.get("debts", {})
    replicator, mender, expirer = (jobs.get(name, {}) for name in ("replicator", "mender", "expirer"))
    device_now_us = now_us + seen.offset_us
    passes = {name: jobs.get(name, {}).get(figure, 0) for name, figure in LAST_PASS.items()}
    passes["updater"] = debts.get("last_walk_us", 0)
    counters: Mapping[str, int] = stats.get("device", {})
    document: Document = {
        "device": str(member),
        "answers": True,
        "state": health.get("state", "?"),
        "uuid": health.get("uuid"),
        "uptime_s": health.get("uptime_s", 0),
        "space": {name: health.get(name, 0) for name in ("total_bytes", "free_bytes", "reserve_bytes")},
        "last_pass_age_s": {
            name: round((device_now_us - at_us) / MICROS, 1) if at_us else None
            for name, at_us in passes.items()
        },
        "backlog": {
            "debts": debts.get("left", 0),
            "hints": replicator.get("hints_waiting", 0),
            "missing_bodies": max(mender.get("left", 0) + mender.get("waiting", 0), stats.get("missing", 0)),
            "lost_volumes": jobs.get("lost_bodies", {}).get("volumes", 0),
            "due": expirer.get("waiting", 0),
            "due_late_s": expirer.get("late_s", 0.0),
            "differing_partitions": replicator.get("differing", 0),
            "not_voting": sum(
                each.owned - each.votes
                for each in (seen.caught_up or {}).values()
                if isinstance(each, CaughtUp)
            ),
            "held_for_others": replicator.get("held_for_others", 0),
        },
        "degraded": {
            str(sound): count for sound, count in sorted(Counter(d.sound for d in seen.degraded).items())
        },
        "oldest_divergence_s": round(replicator.get("oldest_divergence_s", 0.0), 1),
        "damage": {
            "quarantined": stats.get("quarantined", 0),
            **{name: counters.get(name, 0) for name in ("bodies_damaged", "read_errors", "write_errors")},
            "values_damaged": jobs.get("auditor", {}).get("values_damaged", 0),
        },
        "clock_offset_s": round(seen.offset_us / MICROS, 3),
        "paused_until_us": health.get("paused_until_us", 0),
        "rings": {name: ring_standing(ring, health) for name, ring in here.items()},
    }
    return {**document, "warnings": list(_of_device(member, document, device_now_us))}


def ring_standing(ring: Ring, health: Mapping[str, Any]) -> Document:
    """Say which epoch of a ring a process has, and how that stands to the file of this host."""
    epoch, checksum = health.get("epochs", {}).get(ring.name), health.get("checksums", {}).get(ring.name)
    if epoch is None:
        standing = "none"
    elif checksum == ring.checksum:
        standing = "same"
    elif epoch < ring.epoch:
        standing = "older" if ring.ancestor_checksum(epoch) == checksum else "stranger"
    else:
        # Whether a newer one descends from this host's, only its own file tells.
        standing = "newer" if epoch > ring.epoch else "stranger"
    return {"epoch": epoch, "standing": standing}


def degraded_by_ring(rings: Mapping[bytes, Ring], answers: Answers) -> Document:
    """Count partitions with fewer sound copies than owners, by ring and by number of sound copies."""
    return {
        name: {str(copies): counts[copies] for copies in sorted(counts)}
        for name, counts in sorted(sound_copies(rings, answers).items())
    }


def skew_s(seen: Iterable[Seen]) -> float:
    """Return by how much two clocks differ at least, this host's among them: what the questions took is doubt."""
    lows = [0, *(each.offset_us - each.doubt_us for each in seen)]
    highs = [0, *(each.offset_us + each.doubt_us for each in seen)]
    return round(max(0, max(lows) - min(highs)) / MICROS, 3)


def _of_cluster(whole: Document, seen: Sequence[Seen]) -> Iterable[str]:
    for name, counts in whole["degraded"].items():
        for sound, count in counts.items():
            copies = {"0": "no sound copy that answers", "1": "1 sound copy"}.get(
                sound, f"{sound} sound copies"
            )
            yield f"{count} partitions of ring {name} have {copies} left: bring back the devices named here"
    if whole["clock_skew_s"] > SKEW_S:
        yield f"clocks differ by {whole['clock_skew_s']} s: see that all hosts keep time"


def _of_device(member: Member, document: Document, now_us: int) -> Iterable[str]:
    """Say what of a device is not well, each as what follows its name."""
    strange = [name for name, device in member.known_as.items() if str(device.uuid) != document["uuid"]]
    if strange:
        yield (
            f"is not the device that ring {', '.join(strange)} means (its uuid is {document['uuid']}), and has no vote: mount "
            "its disk, or bind its uuid"
        )
    for name, ring in document["rings"].items():
        match ring["standing"]:
            case "older":
                yield f"has epoch {ring['epoch']} of ring {name}, an older one: copy the ring to its host"
            case "newer":
                yield f"has epoch {ring['epoch']} of ring {name}, newer than this host's: copy the ring to this host"
            case "stranger":
                yield f"has a ring {name} that is not of this host's line: put the right one on its host"
    match document["state"]:
        case "full":
            yield "takes no bodies, since only its reserve is left: add devices, or lower its weight"
        case "draining":
            yield "is about to end: see that it is started again"
    backlog, damage = document["backlog"], document["damage"]
    if document["paused_until_us"]:
        left_s = (document["paused_until_us"] - now_us) // MICROS
        yield f"is paused for {left_s} s more: resume it when the reason has passed"
    if backlog["not_voting"]:
        yield f"has to catch up with {backlog['not_voting']} partitions before it votes on them"
    if backlog["missing_bodies"]:
        yield f"lacks {backlog['missing_bodies']} bodies that no owner who answers has brought yet"
    if backlog["lost_volumes"]:
        yield (
            f"lost {backlog['lost_volumes']} volumes or a part of them, and looks which bodies were in them: look at its disk; "
            "they are brought back"
        )
    if backlog["debts"]:
        yield f"holds {backlog['debts']} rows that no majority of a listing's owners takes"
    if backlog["due_late_s"] > LATE_S:
        yield f"holds objects that were due {backlog['due_late_s']:.0f} s ago: raise expired_per_s, or bring back owners"
    age_s = document["last_pass_age_s"]["replicator"]
    if document["uptime_s"] > PASS_S and (age_s is None or age_s > PASS_S):
        yield "has not ended a pass over its peers for ten minutes: look at its log"
    if damage["quarantined"]:
        yield f"has set {damage['quarantined']} files aside: look at its disk, then remove them from quarantine/"
    if damage["read_errors"] or damage["write_errors"]:
        errors = damage["read_errors"] + damage["write_errors"]
        yield f"was refused {errors} reads or writes by its disk: look at the disk"
    if damage["values_damaged"]:
        yield f"has {damage['values_damaged']} damaged values in its index: check it, then rebuild-index"
