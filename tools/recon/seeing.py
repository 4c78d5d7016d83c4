"""Seeing: what each device of a cluster says of itself, asked once.

Owns which calls are made to a device and how far its clock is from this host's. Never judges.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swiftlike.node_calls import CaughtUp, Degraded, ring_name
from swiftlike.node_client import NodeFailed
from tools.members import Member, Members, Silence, ask_all


@dataclass(frozen=True, slots=True)
class Seen:
    """What one device said."""

    health: Mapping[str, Any]
    stats: Mapping[str, Any]
    offset_us: int
    """By how much its clock is ahead of this host's."""
    doubt_us: int
    """By how much that may be wrong: half of what the question took."""
    degraded: tuple[Degraded, ...] = ()
    caught_up: Mapping[str, CaughtUp | Silence] | None = None
    """By the names of the rings; None: not asked."""


async def look(members: Members, timeout_s: float) -> list[tuple[Member, Seen | Silence]]:
    """Ask all devices, each under the epochs that it has itself."""

    async def ask(member: Member) -> Seen:
        began_us = time.time_ns() // 1000
        health = await members.client(member, timeout_s=timeout_s).health()
        ended_us = time.time_ns() // 1000
        client = members.client(member, health.get("epochs", {}), timeout_s)
        stats = await client.stats()
        caught_up: dict[str, CaughtUp | Silence] = {}
        for table in members.rings:
            try:
                caught_up[ring_name(table)] = await client.caught_up(table)
            except NodeFailed as failure:
                caught_up[ring_name(table)] = Silence.of(failure)
        try:
            degraded = tuple(await client.degraded())
        except NodeFailed:
            degraded = ()  # it has only just started, as `caught_up` says
        return Seen(
            health,
            stats,
            int(health.get("now_us", 0)) - (began_us + ended_us) // 2,
            (ended_us - began_us) // 2,
            degraded,
            caught_up,
        )

    return list(zip(members.all, await ask_all(members.all, ask), strict=True))
