"""Which devices a command means, and whether the operator meant that many.

Owns finding and asking. Changes nothing.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

import click

from ring.device import Device
from ring.errors import RingError
from tools.ring_builder.notation import NotationError, Search, normal_host, parse_search

SHOWN: Final = 5
"""Devices that a question or refusal lists by name."""

Asked = tuple[str, Search]
"""A search, and how to call it in a sentence."""


def searches(values: Sequence[str], wanted: Search) -> list[Asked]:
    """Take searches from values or from options, of which only one may be there."""
    if wanted.is_empty:
        if not values:
            raise NotationError("no search value is given; write one such as d3, r1z2, z1-127.0.0.1 or /sdb1")
        return [(value, parse_search(value)) for value in values]
    if values:
        raise NotationError(f"search by options or by values such as {values[0]!r}, not by both")
    return [asked_by_options(wanted)]


def asked_by_options(wanted: Search) -> Asked:
    """Take a search from options, the host in its one spelling."""
    if wanted.host is not None:
        wanted = Search(
            **{
                **{field.name: getattr(wanted, field.name) for field in fields(wanted)},
                "host": normal_host(wanted.host),
            }
        )
    options = {"host": "ip", "name": "device"}
    named = [
        f"--{options.get(field.name, field.name)} {getattr(wanted, field.name)}"
        for field in fields(wanted)
        if getattr(wanted, field.name) is not None
    ]
    return " ".join(named), wanted


def find(devices: Sequence[Device], asked: Asked) -> list[Device]:
    """Return the devices that a search matches. Raises RingError when there are none."""
    text, search = asked
    found = [device for device in devices if search.matches(device)]
    if not found:
        raise RingError(f"no device matches {text}; leave the command out to list the devices")
    return found


def find_to_change(devices: Sequence[Device], asked: Asked, *, yes: bool) -> list[Device]:
    """Return the devices that a search matches; several are asked for first, unless `yes`."""
    found = find(devices, asked)
    if len(found) > 1 and not yes:
        _ask(asked[0], found)
    return found


def find_one(devices: Sequence[Device], asked: Asked) -> Device:
    """Return the one device that a search matches."""
    found = find(devices, asked)
    if len(found) > 1:
        raise RingError(
            f"{asked[0]} matches {_some(found)}; name one of them by its id, such as d{found[0].id}"
        )
    return found[0]


def _ask(text: str, found: Sequence[Device]) -> None:
    """Let an operator at a terminal decide; everywhere else refuse."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RingError(f"{text} matches {_some(found)}; narrow it, or say --yes to change them all")
    if not click.confirm(f"{text} matches {_some(found)}. Change them all?", err=True):
        raise RingError(
            f"{text} was not to change {len(found)} devices; nothing was changed: narrow the search"
        )


def _some(found: Sequence[Device]) -> str:
    names = ", ".join(str(device) for device in found[:SHOWN])
    return f"{len(found)} devices ({names}{', ...' if len(found) > SHOWN else ''})"
