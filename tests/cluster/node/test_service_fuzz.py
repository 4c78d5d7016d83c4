"""Fuzz of the service: whatever a trusted caller sends, it is told by name what was wrong, and the device lives."""

import random
from typing import Any

import pytest

from swiftlike.digests import Digest
from swiftlike.entries import encode
from swiftlike.node_calls import (
    ACCOUNTS,
    CONTAINERS,
    Code,
    Method,
    PartitionDigests,
    encode_version,
    pack_list,
)
from swiftlike.packed_offers import join_offers, pack_offer
from swiftlike.rpc.errors import StreamEnded
from swiftlike.rpc.transport import Body, Header, Outcome, Reply
from swiftlike.timestamps import Offer, WriteId
from tests.cluster.node.conftest import EPOCH, Node
from tests.engine.samples import (
    CONTAINER,
    CREATED,
    NOW_US,
    OBJECTS,
    ballot,
    container,
    new_id,
    object_key,
    put,
    row,
)

STREAMS = (Method.OFFER_STREAM, Method.FILL_STREAM, Method.GET_STREAM)
ROUNDS = 60


def sound_calls() -> dict[Method, tuple[dict[str, Any], bytes]]:
    """One call of each method that would be done."""
    entry = put(1, b"hello")
    placed: dict[str, Any] = {"table": OBJECTS, "epoch": EPOCH}
    keyed = {**placed, "path": object_key("o").path}
    listed = {"table": CONTAINERS, "epoch": EPOCH, "path": CONTAINER.path, "incarnation": bytes(CREATED)}
    part = {**placed, "partition": 3}
    body_id = bytes(entry.body_id)
    rows = pack_list([(CONTAINER.path, b"name", encode(row(1)))])
    debts = pack_list([(object_key("o").path, encode_version(entry.version))])
    query = {"prefix": b"", "marker": b"a", "delimiter": b"/", "limit": 3, "reverse": True, "now_us": NOW_US}
    return {
        Method.OFFER: (
            {**keyed, "entry": encode(entry), "with_body": True, "owing": True, "offer": "copy"},
            b"hello",
        ),
        Method.OFFERS: (
            placed,
            join_offers(
                [
                    pack_offer(object_key(name).path, encode(put(at, b"hello")), b"hello", Offer.COPY)
                    for at, name in enumerate("pq")
                ]
            ),
        ),
        Method.OFFER_STREAM: ({**keyed, "body_id": body_id, "size": 5}, b"hello"),
        Method.PREPARE: ({**keyed, "ballot": bytes(ballot(2)), "closing": False}, b""),
        Method.FILL: ({**keyed, "body_id": body_id}, b"hello"),
        Method.FILL_STREAM: ({**keyed, "body_id": body_id, "size": 5}, b"hello"),
        Method.UPSERT_ROWS: ({"table": CONTAINERS, "epoch": EPOCH}, rows),
        Method.PAY: (placed, debts),
        Method.SET_STANDING: (
            {
                **part,
                "votes": True,
                "floor_us": 1,
                "refusing_us": 1,
                "seen_votes": True,
                "seen_floor_us": 0,
                "seen_refusing_us": 0,
            },
            b"",
        ),
        Method.STANDING: (part, b""),
        Method.READ: (keyed, b""),
        Method.GET: ({**keyed, "inline_bytes": 10}, b""),
        Method.GET_STREAM: ({**keyed, "start": 0, "stop": 3, "body_id": body_id}, b""),
        Method.LIST_ROWS: ({**listed, **query}, b""),
        Method.TALLY: (listed, b""),
        Method.RANGES: ({**listed, "after": b"a", "limit": 3}, b""),
        Method.SPAN_DIGEST: ({**listed, "start": b"a", "stop": b"z"}, b""),
        Method.PARTITION_DIGEST: (part, b""),
        Method.DIGESTS: ({**placed, "bits": 4, "first": 0, "stop": 9}, b""),
        Method.REGISTERS: ({**placed, "bits": 4, "number": 3, "after": b"", "limit": 3}, b""),
        Method.DUE: ({"kind": "debt", "before_us": NOW_US, "limit": 3}, b""),
        Method.MISSING: ({"table": OBJECTS, "after": object_key("o").path, "limit": 3}, b""),
        Method.COMPARE: (
            {},
            pack_list(
                PartitionDigests(table, EPOCH, {3: Digest(7, 1)}).pack() for table in (OBJECTS, b"r\0")
            ),
        ),
        Method.VERSIONS: ({**placed, "bits": 4, "number": 3, "after": b"", "marked": True}, b""),
        Method.VERSIONS_IN: ({**placed, "bits": 4, "after": b""}, pack_list([3, 4])),
        Method.VERSIONS_OF: (placed, pack_list([object_key("o").path])),
        Method.COPIES: (placed, pack_list([(object_key("o").path, bytes(16))])),
        Method.LISTINGS: (
            {
                "table": CONTAINERS,
                "epoch": EPOCH,
                "partition": 3,
                "after": CONTAINER.path,
                "incarnation": bytes(CREATED),
            },
            b"",
        ),
        Method.SPAN_DIGESTS: (listed, pack_list([b"", b"a", b"z"])),
        Method.ROW_BALLOTS: (listed, pack_list([b"a", b"z"])),
        Method.HINT: ({**part, "device": 2, "one_way": True}, b""),
        Method.CAUGHT_UP: (placed, b""),
        Method.TRUST: (part, b""),
        Method.DEGRADED: ({}, b""),
        Method.VERIFY: (keyed, b""),
        Method.PAUSE: ({"until_us": NOW_US + 1_000_000}, b""),
        Method.HEALTH: ({}, b""),
        Method.STATS: ({}, b""),
        Method.METRICS: ({}, b""),
    }


def test_the_fuzz_knows_every_method() -> None:
    assert set(sound_calls()) == set(Method)


def junk(chance: random.Random, value: object) -> object:
    """Something else in the place of a field's value, near it or far from it."""
    near: list[object] = []
    if isinstance(value, bytes) and value:
        at = chance.randrange(len(value))
        flipped = bytes([value[at] ^ 1 << chance.randrange(8)])
        near = [value[:at], value + b"\0", value[:at] + flipped + value[at + 1 :], b"\xff" * len(value)]
    elif isinstance(value, int):
        wild = [value + 1, value - 1, -value, value << chance.randrange(60) & 2**64 - 1]
        near = [
            each for each in wild if -(2**63) <= each < 2**64
        ]  # what travels; a value may be disturbed twice
    far: list[object] = [
        None,
        True,
        -1,
        2**63,
        2**64 - 1,
        1.5,
        "",
        "text",
        b"",
        b"\0",
        b"\xff" * 9,
        chance.randbytes(chance.randrange(300)),
        bytes(3000),
        (),
        (1, (2, b"")),
        {"a": {}},
        ACCOUNTS,
        CONTAINERS,
        OBJECTS,
    ]
    return chance.choice(near * 3 + far)


def disturb(chance: random.Random, header: dict[str, Any], body: bytes) -> tuple[Header, bytes]:
    """Change one to three things about a call."""
    changed = dict(header)
    for _ in range(chance.randrange(1, 4)):
        match chance.randrange(5):
            case 0 if changed:
                del changed[chance.choice(sorted(changed))]
            case 1:
                changed[chance.choice(["x", "", "entry", "size", "limit"])] = junk(chance, None)
            case 2 if body:
                found = junk(chance, body)
                body = found if isinstance(found, bytes) else b"\xdd\xff\xff\xff\xff"
            case _ if changed:
                name = chance.choice(sorted(changed))
                changed[name] = junk(chance, changed[name])
            case _:
                pass
    return changed, body


def sound_body_id(header: Header) -> WriteId:
    """Return the body id that a stream was opened with, or some other if that is none."""
    found = header.get("body_id")
    return WriteId(found) if isinstance(found, bytes) and len(found) == 16 else new_id()


async def ask(node: Node, method: Method, header: Header, body: Body) -> Reply:
    """Call, or stream a body and perhaps an entry behind it."""
    deadline = node.transport.now() + 10
    if method not in STREAMS:
        return await node.transport.call(node.address, str(method), header, body, deadline=deadline)
    try:
        async with node.transport.open_stream(node.address, str(method), header, deadline=deadline) as stream:
            if method is Method.GET_STREAM:
                async for _ in stream:
                    pass
                assert stream.reply is not None
                return stream.reply
            if body:
                await stream.send(body)
            if method is not Method.OFFER_STREAM:
                return await stream.finish()
            entry = put(3, b"hello", body_id=sound_body_id(header))
            return await stream.finish(header={"epoch": EPOCH, "entry": encode(entry)})
    except StreamEnded as end:
        return end.reply


@pytest.mark.parametrize("method", Method)
async def test_a_sound_call_is_done_and_any_other_is_refused_by_name(node: Node, method: Method) -> None:
    chance = random.Random(f"fuzz {method}")
    await node.client.offer(CONTAINERS, CONTAINER.path, container())
    header, body = sound_calls()[method]
    if method is not Method.GET_STREAM:
        sound = await ask(node, method, header, body)
        assert sound.outcome is Outcome.OK or sound.code == Code.STORAGE_ERROR, sound
    refused = 0
    for _ in range(ROUNDS):
        changed, changed_body = disturb(chance, header, body)
        reply = await ask(node, method, changed, changed_body)
        assert reply.outcome in (Outcome.OK, Outcome.ERROR), (changed, changed_body, reply)
        if reply.outcome is Outcome.ERROR:
            assert reply.code in set(Code), reply
            assert reply.reason, reply
            refused += 1
    assert refused > ROUNDS // 4
    assert node.handler_bugs() == 0
    entry = put(9, b"alive")
    assert (await node.client.offer(OBJECTS, object_key("alive").path, entry, b"alive")).accepted
