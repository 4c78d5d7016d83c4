"""swiftlike-recon beside real devices: well, one dead, paused, a ring that moves, and nobody there."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from storage_node.housekeeping import ROUND_S
from tests.cluster.serve.clusters import OFTEN, HandMade, wait_for
from tools.recon import main as recon

HEALED_S = 60.0
pytestmark = pytest.mark.timeout(300)


class Recon:
    """The tool on the first host of a cluster."""

    def __init__(self, cluster: HandMade) -> None:
        self._config = cluster.hosts[0].config

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(recon, ["--config", str(self._config), *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    def json(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        result = self.run("--json", *arguments)
        document: dict[str, Any] = json.loads(result.stdout)
        return result.exit_code, document

    def is_well(self) -> bool:
        code, document = self.json()
        return code == 0 and all(d["last_pass_age_s"]["replicator"] is not None for d in document["devices"])


def test_a_cluster_is_well_until_a_device_dies_and_again_when_it_is_back(tmp_path: Path) -> None:
    cluster = HandMade.make(tmp_path, hosts=3, devices=1, jobs=OFTEN)
    tool, last = Recon(cluster), cluster.hosts[2]
    with cluster.running():
        wait_for(tool.is_well, "all is well", HEALED_S)
        shown = tool.run()
        assert (shown.exit_code, "all is well: 3 devices answer" in shown.stdout) == (0, True)
        _, document = tool.json()
        for device in document["devices"]:
            assert device["space"]["total_bytes"] > device["space"]["free_bytes"] > 0
            assert {ring["standing"] for ring in device["rings"].values()} == {"same"}
            assert abs(device["clock_offset_s"]) < ROUND_S, "one machine, one clock"
            assert {
                "replicator",
                "auditor",
                "expirer",
                "updater",
                "mender",
                "reaper",
                "reclaimer",
                "compactor",
            } == (device["last_pass_age_s"].keys())
        cluster.storages[last.address].__exit__(None, None, None)
        code, document = tool.json()
        assert (code, document["answering"]) == (1, 2)
        (name,) = last.device_ports
        assert any(f"/{name} does not answer" in warning for warning in document["warnings"])

        def degraded() -> bool:
            counts = tool.json()[1]["degraded"]
            return {name: set(by) for name, by in counts.items()} == {key: {"2"} for key in document["rings"]}

        wait_for(degraded, "each partition has two sound copies", HEALED_S)
        cluster.start_storage(last)
        cluster.wait_serving(last)
        wait_for(tool.is_well, "all is well again", HEALED_S)


def test_a_ring_change_is_paused_resumed_and_seen_through(tmp_path: Path) -> None:
    cluster = HandMade.make(tmp_path, hosts=3, devices=2, jobs=OFTEN)
    tool, first = Recon(cluster), cluster.hosts[0]
    with cluster.running():
        code, document = tool.json("ring")
        assert (code, {ring["moving_partitions"] for ring in document["rings"]}) == (0, {0})
        paused = tool.run("pause", "--for", "30m")
        assert (paused.exit_code, paused.stdout.count("paused for 30 min")) == (0, 6)
        for builder in cluster.builders.values():
            builder.pretend_min_part_hours_passed()
            (drained,) = [device for device in builder.present() if device.name == "h1d1"]
            builder.remove(drained.id)
            builder.rebalance(1_800_000_000)
        cluster.publish()
        # A restart keeps to it.
        cluster.storages[first.address].__exit__(None, None, None)
        cluster.start_storage(first)
        cluster.wait_serving(first)

        def moving() -> bool:
            code, document = tool.json("ring", "object-0")
            (progress,) = document["rings"]
            told = progress["devices"]
            return code == 1 and progress["replicas"] > 0 and all(d["paused"] and not d["why"] for d in told)

        wait_for(moving, "all devices have the ring that moves, and take nothing", HEALED_S)
        (progress,) = tool.json("ring", "object-0")[1]["rings"]
        assert (progress["caught_up"], progress["left_s"]) == (0, None)
        assert "paused" in tool.run("ring", "object-0").stdout
        assert sum("is paused for" in warning for warning in tool.json()[1]["warnings"]) == 6
        assert (
            tool.run("resume", "--device", "h1d2").stdout
            == f"{first.address}:{first.device_ports['h1d2']}/h1d2 goes on\n"
        )
        assert tool.run("resume").exit_code == 0
        wait_for(lambda: tool.run("ring").exit_code == 0, "all new owners have caught up", HEALED_S)
        assert "settle it" in tool.run("ring").stdout


def test_nobody_who_answers_and_files_that_are_wrong_are_no_judgement(tmp_path: Path) -> None:
    cluster = HandMade.make(tmp_path, hosts=1, devices=1, replicas=1)
    tool = Recon(cluster)
    code, document = tool.json()
    assert (code, document["answering"], document["well"]) == (2, 0, False)
    assert tool.run("pause").exit_code == 2
    for arguments, words in (
        (("ring", "strange"), "there is no ring strange"),
        (("pause", "--device", "strange"), "no ring names a device strange"),
        (("pause", "--for", "25h"), "up to 24h"),
    ):
        refused = tool.run(*arguments)
        assert (refused.exit_code, words in refused.output) == (2, True), refused.output
    (cluster.root / "rings" / "object-0.ring").unlink()
    missing = tool.run()
    assert (missing.exit_code, "object-0.ring" in missing.output) == (2, True)
