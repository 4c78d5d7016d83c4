"""How what recon tells looks to a person. Owns looks only: what is drawn comes from the documents."""

from typing import Any, Final

from tools.recon.moving import Document, duration, sentence
from tools.ring_builder.tables import show_lines, show_table

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def show_cluster(document: Document) -> None:
    """Print a cluster."""
    devices = [device for device in document["devices"] if device["answers"]]
    show_table(
        ("device", "state", "used", "free", "rings", "clock s", "not voting", "degraded", "oldest", "paused"),
        ((*_standing(device),) for device in document["devices"]),
    )
    show_lines("")
    show_table(
        ("backlog", "debts", "hints", "missing", "due", "differing", "for others", "set aside", "damaged"),
        (
            (
                device["device"],
                *(
                    device["backlog"][name]
                    for name in (
                        "debts",
                        "hints",
                        "missing_bodies",
                        "due",
                        "differing_partitions",
                        "held_for_others",
                    )
                ),
                device["damage"]["quarantined"],
                device["damage"]["bodies_damaged"] + device["damage"]["values_damaged"],
            )
            for device in devices
        ),
    )
    show_lines("")
    jobs = sorted({job for device in devices for job in device["last_pass_age_s"]})
    show_table(
        ("last pass ago", *jobs),
        ((device["device"], *(_age(device["last_pass_age_s"][job]) for job in jobs)) for device in devices),
    )
    show_lines("")
    for name, ring in document["rings"].items():
        moving = ring["moving_partitions"]
        degraded = document["degraded"].get(name, {})
        words = [f"{count} with {sound} sound copies" for sound, count in degraded.items()]
        show_lines(
            f"ring {name}, epoch {ring['epoch']}: "
            + (f"{moving} partitions are moving" if moving else "nothing is moving")
            + "; "
            + (f"degraded: {', '.join(words)}" if words else "no partition is degraded")
        )
    show_lines(*(f"warning: {warning}" for warning in document["warnings"]))
    if document["well"]:
        show_lines(f"all is well: {document['answering']} devices answer")


def _standing(device: Document) -> tuple[Any, ...]:
    if not device["answers"]:
        return (device["device"], "silent", *[None] * 8)
    space = device["space"]
    total, free = space["total_bytes"], space["free_bytes"]
    rings = {ring["standing"] for ring in device["rings"].values()}
    oldest_s = device["oldest_divergence_s"]
    return (
        device["device"],
        device["state"],
        f"{100 * (total - free) / total:.0f} %" if total else None,
        size(free),
        "/".join(sorted(rings)),
        f"{device['clock_offset_s']:+.2f}",
        device["backlog"]["not_voting"],
        " ".join(f"{count}x{sound}" for sound, count in device["degraded"].items()) or None,
        duration(oldest_s) if oldest_s else None,
        "yes" if device["paused_until_us"] else None,
    )


def show_progress(progress: Document) -> None:
    """Print how far a ring's change is."""
    show_lines(sentence(progress))
    if progress["devices"]:
        show_table(
            ("device", "replicas", "there", "a minute", "left", ""),
            (
                (
                    device["device"],
                    device["moving"],
                    device["moved"],
                    round(60 * device["per_s"], 1),
                    duration(device["left_s"]) if device["left_s"] is not None else None,
                    device["why"] or ("paused" if device["paused"] else ""),
                )
                for device in progress["devices"]
            ),
        )


def size(count: float) -> str:
    """Write a number of bytes as people do."""
    at = 0
    while count >= 1024 and at < len(_UNITS) - 1:
        count /= 1024
        at += 1
    return f"{count:.0f} {_UNITS[at]}" if count >= 100 or at == 0 else f"{count:.1f} {_UNITS[at]}"


def _age(seconds: float | None) -> str | None:
    return None if seconds is None else duration(seconds)
