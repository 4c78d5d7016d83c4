"""A random life of a device beside a plain dictionary that says what it must hold."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage_node import compaction
from storage_node.checking import ClosedDevice, check
from storage_node.device import Device, Settings
from storage_node.formatting import format_device
from storage_node.keys import CONTAINERS, Due
from storage_node.store import Body, Offered, RowOffer
from swiftlike.digests import digest_of
from swiftlike.entries import Entry
from swiftlike.limits import SMALL_BODY_BYTES_MAX
from swiftlike.node_calls import Query, Standing
from swiftlike.timestamps import ZERO_BALLOT, Ballot
from tests.engine.conftest import stand, vote_everywhere
from tests.engine.samples import (
    CONTAINER,
    LAYOUT,
    NOW_US,
    OBJECTS,
    ROWS,
    ballot,
    container,
    delete,
    object_key,
    post,
    put,
    row,
)

NAMES = [b"a", b"b/1", b"b/2", b"b/3", b"c"]
START = -1_000_000
"""Ballots of the run count up from here, so that a floor can be set below the present and above old ones."""

names = st.sampled_from(NAMES)
sizes = st.sampled_from([0, 1, 100, 3_000, 140_000, SMALL_BODY_BYTES_MAX + 9])
steps = st.integers(-2, 3)


@dataclass
class Expected:
    """What the dictionary holds for one key."""

    entry: Entry | None = None
    body: bytes | None = None
    promised: Ballot = ZERO_BALLOT
    owing: bool = False

    def has(self, entry: Entry) -> bool:
        """Whether the body that is here, or lacking, is this entry's."""
        return self.entry is not None and self.entry.body_id == entry.body_id


class DeviceLife(RuleBasedStateMachine):
    """Accept, prepare, delete, post, list, compact, reclaim, reopen."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="device-life-"))
        self.root = self.directory / "d1"
        self.root.mkdir()
        self.settings = Settings(reserve_bytes=0, index_map_bytes=1 << 28, volume_bytes_max=200_000)
        format_device(self.root, map_bytes=self.settings.index_map_bytes)
        self.objects: dict[bytes, Expected] = {}
        self.rows: dict[bytes, Entry] = {}
        self.readers: list[tuple[Body, bytes]] = []
        self.clock = START
        self.open()

    def run(self, work: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await work

        return self.runner.run(wait())

    def open(self) -> None:
        self.device = Device(self.root, LAYOUT, lambda: NOW_US, settings=self.settings)

        async def start() -> None:
            self.device.start()

        self.run(start())

    def close(self) -> None:
        self.run(self.device.close())
        closed = ClosedDevice(self.root, map_bytes=self.settings.index_map_bytes)
        assert check(closed).damage == []
        closed.close()

    @initialize()
    def begin(self) -> None:
        self.run(vote_everywhere(self.device))
        self.run(self.device.offer(Offered(CONTAINER, container())))

    def at(self, step: int) -> int:
        """Return a time near the last one: mostly above, sometimes not."""
        at = self.clock + step
        self.clock = max(self.clock, at)
        return at

    def expected(self, name: bytes) -> Expected:
        return self.objects.setdefault(name, Expected())

    def offer(self, name: bytes, entry: Entry, body: bytes | None, owing: bool) -> None:
        held = self.expected(name)
        answer = self.run(self.device.offer(Offered(object_key(name), entry, body=body, owing=owing)))
        above = held.entry is None or entry.ballot > held.entry.ballot
        passes = above and entry.ballot >= held.promised
        # A body that is here is not let go of for one that does not come along.
        wants_body = passes and body is None and bool(entry.size and held.body) and not held.has(entry)
        taken = passes and not wants_body
        assert (answer.accepted, answer.wants_body) == (taken, wants_body)
        if wants_body:
            return
        if not taken:
            assert answer.above == max(held.promised, held.entry.ballot if held.entry else ZERO_BALLOT)
            return
        if not entry.has_body:
            held.body = None
        elif body is not None:
            held.body = body
        elif not held.has(entry):
            held.body = None
        assert answer.whole is (held.body is not None or not entry.has_body)
        if answer.replaced is not None and held.entry is not None:
            assert answer.replaced.version == held.entry.version
            assert answer.replaced.live is not held.entry.tombstone
        held.entry, held.promised, held.owing = entry, ZERO_BALLOT, owing

    @rule(name=names, size=sizes, step=steps, owing=st.booleans(), send=st.booleans())
    def accept(self, name: bytes, size: int, step: int, owing: bool, send: bool) -> None:
        body = (name * (size // len(name) + 1))[:size]
        send = send or size == 0
        self.offer(name, put(self.at(step), body), body if send else None, owing)

    @rule(name=names, step=steps)
    def delete(self, name: bytes, step: int) -> None:
        self.offer(name, delete(self.at(step)), None, owing=True)

    @rule(name=names, step=steps)
    def post(self, name: bytes, step: int) -> None:
        old = self.expected(name).entry
        if old is not None and not old.tombstone:
            self.offer(name, post(self.at(step), old), None, owing=False)

    @rule(name=names, step=steps)
    def prepare(self, name: bytes, step: int) -> None:
        held, asked = self.expected(name), ballot(self.at(step), writer=2)
        answer = self.run(self.device.prepare(object_key(name), asked))
        outstanding = max(held.promised, held.entry.ballot if held.entry else ZERO_BALLOT)
        assert (answer.register is not None) is (asked > outstanding)
        if answer.register is not None:
            assert answer.register.entry == held.entry
            held.promised = asked
        else:
            assert answer.above == outstanding

    @rule(name=names, reoffer=st.booleans())
    def bring_the_missing_body(self, name: bytes, reoffer: bool) -> None:
        held = self.expected(name)
        if held.entry is None or not held.entry.has_body or held.body is not None:
            return
        body = (name * (held.entry.size // len(name) + 1))[: held.entry.size]
        if reoffer:
            answer = self.run(self.device.offer(Offered(object_key(name), held.entry, body=body)))
            assert answer.counts
        else:
            assert self.run(self.device.fill(object_key(name), held.entry.body_id, body))
        held.body = body

    @rule(name=names)
    def pay(self, name: bytes) -> None:
        held = self.expected(name)
        if held.entry is not None:
            assert self.run(self.device.pay([(object_key(name), held.entry.version)])) == held.owing
            held.owing = False

    @rule(name=names, size=st.integers(0, 99), step=steps, gone=st.booleans())
    def upsert_row(self, name: bytes, size: int, step: int, gone: bool) -> None:
        entry = row(self.at(step), size, tombstone=gone)
        (taken,) = self.run(self.device.upsert_rows([RowOffer(CONTAINER, name, entry)]))
        assert isinstance(taken, Ballot), taken
        old = self.rows.get(name)
        if old is None or (entry.ballot, entry.write_id) > (old.ballot, old.write_id):
            self.rows[name] = entry

    @rule(name=names)
    def hold_a_body_open(self, name: bytes) -> None:
        found = self.run(self.device.open_object(object_key(name)))
        body = self.expected(name).body
        assert (found is None) is (body is None)
        if found is not None and body is not None:
            self.readers.append((found[1], body))

    @precondition(lambda self: self.readers)
    @rule()
    def read_what_was_held_open(self) -> None:
        reader, body = self.readers.pop()
        assert bytes(self.run(reader.read(0, reader.size))) == body
        reader.release()

    @rule()
    def compact(self) -> None:
        for volume in compaction.worth_compacting(self.device):
            assert self.run(compaction.compact(self.device, volume)).removed

    @rule(back=st.integers(0, 6))
    def reclaim(self, back: int) -> None:
        """Let a floor pass what is older than `back` steps; only paid tombstones and lone promises may go."""
        floor_us = max(NOW_US + self.clock - back, self.device.standing(OBJECTS, 0).floor_us)
        partitions = [(table, number) for table in (OBJECTS, CONTAINERS) for number in range(16)]

        async def reclaim_all() -> None:
            floor = Standing(votes=True, floor_us=floor_us)
            await asyncio.gather(*(stand(self.device, *partition, floor) for partition in partitions))
            await asyncio.gather(*(self.device.reclaim(*partition, 1_000) for partition in partitions))

        self.run(reclaim_all())
        for name, held in list(self.objects.items()):
            newest = max(held.promised.micros, held.entry.ballot.micros if held.entry else 0)
            kept = held.entry is not None and (not held.entry.tombstone or held.owing)
            if not kept and newest < floor_us:
                del self.objects[name]
        for name, entry in list(self.rows.items()):
            if entry.tombstone and entry.ballot.micros < floor_us:
                del self.rows[name]
        # Below the floor an absent key is refused: later steps go on above it.
        self.clock += 3

    @rule()
    def reopen(self) -> None:
        while self.readers:
            self.readers.pop()[0].release()
        self.close()
        self.open()

    @invariant()
    def every_key_holds_what_it_should(self) -> None:
        for name in NAMES:
            held, key = self.objects.get(name, Expected()), object_key(name)
            found = self.device.read(key)
            if held.entry is None and held.promised == ZERO_BALLOT:
                assert found is None
                continue
            assert found is not None
            assert (found.register.entry, found.register.promised) == (held.entry, held.promised)
            assert len(found.register.replaced) <= 8
        entries = {object_key(name).path: held.entry for name, held in self.objects.items() if held.entry}
        for partition in range(16):
            inside = [
                (path, entry)
                for path, entry in entries.items()
                if LAYOUT.partition(OBJECTS, LAYOUT.hashed(path)) == partition
            ]
            assert self.device.partition_digest(OBJECTS, partition) == digest_of(inside)

    @invariant()
    def every_body_reads_back(self) -> None:
        for name, held in self.objects.items():
            found = self.run(self.device.open_object(object_key(name)))
            assert (found is None) is (held.body is None)
            if found is not None:
                assert bytes(self.run(found[1].read(0, found[1].size))) == held.body
                found[1].release()
        lacking = {
            object_key(name)
            for name, held in self.objects.items()
            if held.entry is not None and held.entry.has_body and held.body is None
        }
        assert set(self.device.missing(None, 100)) == lacking

    @invariant()
    def debts_and_rows_are_exact(self) -> None:
        owed = {
            (object_key(name), held.entry.version)
            for name, held in self.objects.items()
            if held.owing and held.entry
        }
        assert set(self.device.due(Due.DEBT, NOW_US + 10**9, 100)) == owed
        listed = self.device.list_rows(ROWS, Query(tombstones=True))
        assert [(found.name, found.entry) for found in listed.rows] == sorted(self.rows.items())
        live = [entry for entry in self.rows.values() if not entry.tombstone]
        tally = self.device.tally(ROWS)
        assert (tally.rows, tally.bytes) == (len(live), sum(entry.size for entry in live))
        assert tally.digest == digest_of(self.rows.items())

    @invariant()
    def no_file_is_left_behind(self) -> None:
        assert not list((self.root / "staging").iterdir())

    def teardown(self) -> None:
        while self.readers:
            self.readers.pop()[0].release()
        self.close()
        self.runner.close()
        shutil.rmtree(self.directory)


TestDeviceLife = DeviceLife.TestCase
TestDeviceLife.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
