"""When looking one key up leaves the event loop, and when it returns to it."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_node import device as device_module
from storage_node.device import Device
from storage_node.tables import Held
from storage_node.warmth import Warmth
from swiftlike.limits import INDEX_FAULTS_MAX, INDEX_LOOKUPS_SAMPLED, INDEX_LOOKUPS_WINDOW
from tests.engine.conftest import opened, vote_everywhere
from tests.engine.samples import object_key, put
from tests.engine.test_store_contract import body_of, offer

KEY = object_key("one")


class Faults:
    """A kernel that counts the major faults which a test gives it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.each = 0
        self.total = 0
        monkeypatch.setattr(device_module, "major_faults", self.count)

    def count(self) -> int:
        self.total += self.each
        return self.total


def where_reads_run(device: Device, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note for each look-up whether it ran on this thread, the event loop's."""
    on_loop: list[bool] = []
    plain, here = device.read, threading.get_ident()

    def read(key: object) -> Held | None:
        on_loop.append(threading.get_ident() == here)
        return plain(key)  # type: ignore[arg-type]

    monkeypatch.setattr(device, "read", read)
    return on_loop


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), max_size=200))
def test_look_ups_stay_on_the_loop_exactly_while_faults_are_rare(steps: list[tuple[int, int]]) -> None:
    warmth, lookups, faults, warm = Warmth(), 0, 0, True
    for more_lookups, more_faults in steps:
        warmth.note(more_lookups, more_faults)
        lookups, faults = lookups + more_lookups, faults + more_faults
        if faults > INDEX_FAULTS_MAX:
            lookups, faults, warm = 0, 0, False
        elif lookups >= INDEX_LOOKUPS_WINDOW:
            lookups, faults, warm = 0, 0, True
        assert warmth.warm is warm


def test_a_window_of_few_faults_brings_look_ups_back_to_the_loop() -> None:
    warmth = Warmth()
    warmth.note(1, INDEX_FAULTS_MAX + 1)
    assert not warmth.warm
    warmth.note(INDEX_LOOKUPS_WINDOW - 1, INDEX_FAULTS_MAX)
    assert not warmth.warm, "not before the window is over"
    warmth.note(1, 0)
    assert warmth.warm


async def test_a_warm_look_up_takes_no_hop_and_a_cold_index_sends_it_to_the_readers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(monkeypatch)
    async with opened(root) as device:
        await vote_everywhere(device)
        await offer(device, KEY, put(1, b"body"), b"body")
        on_loop = where_reads_run(device, monkeypatch)
        for _ in range(2 * INDEX_LOOKUPS_SAMPLED):
            assert await device.look_up(KEY) == device.read(KEY)
        assert all(on_loop)
        faults.each = INDEX_FAULTS_MAX + 1
        for _ in range(INDEX_LOOKUPS_SAMPLED):
            await device.look_up(KEY)
        assert not device.warmth.warm
        faults.each = 0
        on_loop.clear()
        assert await body_of(device, KEY) == b"body"
        assert on_loop == [False]
        assert device.counters.index_faults > INDEX_FAULTS_MAX
        for _ in range(INDEX_LOOKUPS_WINDOW):
            await device.look_up(KEY)
        on_loop.clear()
        await device.look_up(KEY)
        assert on_loop == [True], "the index is warm again"


async def test_a_scan_never_runs_on_the_loop(device: Device) -> None:
    here = threading.get_ident()
    assert await device.scan(threading.get_ident) != here
