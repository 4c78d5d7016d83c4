"""What the ring builder tells, as plain values: the JSON documents, which the tables are drawn from as well.

Owns the names of their fields, which scripts rely on: fields are added, never renamed. Computes nothing that
`ring.builder.report` could.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

from ring.builder import Rebalance, RingBuilder
from ring.builder.report import (
    DeviceBalance,
    Dispersion,
    Flow,
    Moves,
    balance,
    dispersion,
    draining,
    largest_deviation_percent,
)
from ring.device import Device
from ring.errors import RingError, RingFileError
from tools.ring_builder.session import Session, made_by

Document = dict[str, Any]


def ring_document(session: Session, builder: RingBuilder) -> Document:
    """Describe the whole ring: its settings, its figures, its devices."""
    balances = balance(builder)
    return {
        "ring": builder.name,
        "builder_id": str(builder.id),
        "epoch": builder.epoch,
        "part_power": builder.part_power,
        "partitions": builder.partitions,
        "replicas": builder.replicas,
        "regions": len({device.region for device in builder.present()}),
        "zones": len({(device.region, device.zone) for device in builder.present()}),
        "device_count": len(builder.present()),
        "overload": builder.overload,
        "min_part_hours": builder.min_part_hours,
        "seconds_to_wait": builder.seconds_to_wait(session.now_s),
        "moving_partitions": len(builder.moving_partitions),
        "balance_percent": round(largest_deviation_percent(balances), 4),
        "draining_replicas": draining(balances),
        "dispersion_percent": round(dispersion(builder).percent, 4),
        "ring_file": ring_file_document(session, builder),
        "devices": balances_document(balances),
    }


def ring_file_document(session: Session, builder: RingBuilder) -> Document:
    """Say how the ring beside the builder stands to it."""
    up_to_date, standing = _ring_standing(session, builder)
    return {"path": str(session.ring_path), "up_to_date": up_to_date, "standing": standing}


def _ring_standing(session: Session, builder: RingBuilder) -> tuple[bool, str]:
    try:
        session.check_name(builder.name)
        ring = session.ring_beside()
    except RingFileError as error:
        return False, f"{error}; write_ring does that"
    except RingError as error:
        return False, str(error)
    if not builder.owners.size:
        return False, "there is no ring yet: add devices and rebalance"
    if ring is None:
        return False, "there is no ring file: write_ring writes it"
    if not made_by(builder, ring):
        return False, f"it is of epoch {ring.epoch} and does not come from this builder"
    if ring.epoch < builder.epoch:
        return False, f"it is of epoch {ring.epoch}: write_ring writes epoch {builder.epoch}"
    if has_unpublished_changes(builder):
        return False, "devices were changed since it was made: rebalance, or write_ring if nothing shall move"
    return True, "it is up to date"


def has_unpublished_changes(builder: RingBuilder) -> bool:
    """Say whether a ring written now would be another one than that of the current epoch."""
    asked = copy(builder)  # which publishing gives a lineage of its own; the tables are only read
    asked.publish()
    return asked.epoch != builder.epoch


def device_document(device: Device) -> Document:
    """Describe a device under the names that the options have."""
    return {
        "id": device.id,
        "region": device.region,
        "zone": device.zone,
        "ip": device.host,
        "port": device.port,
        "device": device.name,
        "weight": device.weight,
        "meta": device.meta,
        "uuid": None if device.uuid is None else str(device.uuid),
        "name": str(device),
    }


def devices_document(devices: Iterable[Device]) -> list[Document]:
    """Describe devices in their order."""
    return [device_document(device) for device in devices]


def balances_document(balances: Iterable[DeviceBalance]) -> list[Document]:
    """Describe devices and what they hold."""
    return [
        {
            **device_document(balance.device),
            "replicas": balance.held,
            "replicas_by_weight": round(balance.wanted, 4),
            "balance_percent": None
            if balance.deviation_percent is None
            else round(balance.deviation_percent, 4),
            "flags": flags(balance),
        }
        for balance in balances
    ]


def flags(balance: DeviceBalance) -> list[str]:
    """Say in a word what is special about a device."""
    special = {
        "removed": balance.removed,
        "draining": not balance.removed and not balance.wanted and bool(balance.held),
        "unbound": balance.device.uuid is None and not balance.removed,
    }
    return [flag for flag, is_so in special.items() if is_so]


def dispersion_document(measured: Dispersion) -> Document:
    """Describe how far apart replicas stand."""
    return {
        "dispersion_percent": round(measured.percent, 4),
        "crowded_replicas": measured.crowded,
        "replicas": measured.replicas,
        "tiers": [
            {
                "tier": tier.tier.name.lower(),
                "nodes": tier.nodes,
                "crowded_replicas": tier.crowded,
                "partitions_by_distinct": {str(n): times for n, times in tier.partitions_by_distinct.items()},
            }
            for tier in measured.tiers
        ],
    }


def moves_document(moves: Moves) -> Document:
    """Describe what moves."""
    return {
        "partitions_moved": moves.partitions,
        "replicas_moved": moves.replicas,
        "percent_of_cluster": round(moves.percent, 4),
        "zone_flows": [
            {"from": _zone(flow.source), "to": _zone(flow.target), "replicas": flow.replicas}
            for flow in moves.zones
        ],
        "device_flows": _device_flows(moves.devices),
    }


def _device_flows(flows: Sequence[Flow[Device]]) -> list[Document]:
    return [
        {
            "from": None if flow.source is None else str(flow.source),
            "to": None if flow.target is None else str(flow.target),
            "replicas": flow.replicas,
        }
        for flow in flows
    ]


def _zone(zone: tuple[int, int] | None) -> str | None:
    return None if zone is None else f"r{zone[0]}z{zone[1]}"


def rebalance_document(builder: RingBuilder, outcome: Rebalance, moves: Moves) -> Document:
    """Describe a rebalance: what moved and why, what could not, and how the ring stands after it."""
    balances = balance(builder)
    return {
        "epoch": outcome.epoch,
        "replicas": moves.replicas_in_all,
        **moves_document(moves),
        "replicas_by_reason": {reason.value: count for reason, count in outcome.moved.items()},
        "held_back": outcome.held_back,
        "balance_percent": round(largest_deviation_percent(balances), 4),
        "draining_replicas": draining(balances),
        "dispersion_percent": round(dispersion(builder).percent, 4),
        "notes": [str(note) for note in outcome.notes],
    }
