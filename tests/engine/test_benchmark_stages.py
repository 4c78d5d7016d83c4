"""The stages of the device's benchmark, at a size that takes no time: what is rarely run is found broken here."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from benchmarks import our_device


def stage(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(our_device.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    figures: dict[str, Any] = json.loads(done.output)
    return figures


def test_a_device_is_filled_in_bulk_and_serves_what_it_was_filled_with(tmp_path: Path) -> None:
    device = str(tmp_path / "device")
    assert stage("fill", device, "300")["fill_per_s"] > 0
    figures = stage("serve", device, "300", "300", "--seconds", "0.05", "--in-flight", "4")
    assert figures["get_per_s"] > 0
    assert figures["put"] > 0


def test_listings_are_filled_in_bulk_and_their_pages_are_full(tmp_path: Path) -> None:
    device = str(tmp_path / "device")
    assert stage("fill-rows", device, "1000")["fill_per_s"] > 0
    assert stage("list", device, "1000", "--seconds", "0.05")
