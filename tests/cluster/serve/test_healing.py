"""Devices of real processes that missed something, or lost everything, and are whole again without anybody reading."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from click.testing import CliRunner

from ring.file import load_ring
from storage_node.formatting import format_device
from swiftlike.config import load_cluster
from swiftlike.node_calls import CONTAINERS, CaughtUp, objects
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.transport import TcpAddress
from tests.cluster.serve.clusters import ACCOUNT, KEY, OFTEN, POWER, USER, HandMade, HandMadeHost, wait_for
from tests.cluster.serve.swift_client import Swift
from tools.device import main as device_tool
from tools.recon import main as recon_tool
from tools.ring_builder.caught_up import who_waits

OBJECTS = objects(0)
HEALED_S = 60.0
T = TypeVar("T")


@pytest.fixture
def cluster(tmp_path: Path) -> HandMade:
    """Three hosts of one device each."""
    return HandMade.make(tmp_path, hosts=3, devices=1)


def ask(cluster: HandMade, host: HandMadeHost, question: Callable[[NodeClient], Awaitable[T]]) -> T:
    """Ask the device of a host."""
    epoch = max(builder.epoch for builder in cluster.builders.values())

    async def main() -> T:
        secret = load_cluster(cluster.root / "cluster.toml").rpc_secret
        async with Client(SocketNetwork(), secret) as transport:
            (port,) = host.device_ports.values()
            return await question(NodeClient(transport, TcpAddress(host.address, port), lambda table: epoch))

    return asyncio.run(main())


def holds(cluster: HandMade, host: HandMadeHost) -> tuple[object, ...]:
    """What a device holds, as digests; its missing bodies too."""

    async def question(client: NodeClient) -> tuple[object, ...]:
        found: list[object] = [
            await client.partition_digest(table, partition)
            for table in (OBJECTS, CONTAINERS)
            for partition in range(1 << POWER)
        ]
        return *found, tuple(await client.missing())

    try:
        return ask(cluster, host, question)
    except NodeFailed as failure:
        return (str(failure),)


def caught_up(cluster: HandMade, host: HandMadeHost) -> CaughtUp | None:
    """How far a device is; None while it does not answer under the newest ring."""
    try:
        return ask(cluster, host, lambda client: client.caught_up(OBJECTS))
    except NodeFailed:
        return None


def fill(host: HandMadeHost, first: int, stop: int) -> None:
    """Write some objects, small and large, and delete one."""
    with Swift((host.address, host.proxy_port), f"{ACCOUNT}:{USER}", KEY) as swift:
        assert swift.ask("PUT", f"{swift.path}/c", headers={"X-Auth-Token": swift.token}).status in (201, 202)
        for number in range(first, stop):
            body = bytes([number % 251]) * (3_000_000 if number % 10 == 9 else 500)
            path = f"{swift.path}/c/o{number:03d}"
            assert swift.ask("PUT", path, body, {"X-Auth-Token": swift.token}).status == 201
        path = f"{swift.path}/c/o{first:03d}"
        assert swift.ask("DELETE", path, headers={"X-Auth-Token": swift.token}).status == 204


@pytest.mark.timeout(300)
def test_a_device_that_was_killed_and_written_around_gets_its_copies_without_a_read(
    cluster: HandMade,
) -> None:
    first, second, third = cluster.hosts
    with cluster.running():
        fill(first, 0, 10)
        cluster.storages[third.address].__exit__(None, None, None)
        fill(first, 10, 40)
        cluster.start_storage(third)
        cluster.wait_serving(third)
        wait_for(
            lambda: len({holds(cluster, host) for host in (first, second, third)}) == 1,
            "all three hold the same",
            HEALED_S,
        )
        assert len(holds(cluster, third)) > 1, "digests, and not a refusal"


@pytest.mark.timeout(300)
def test_a_disk_that_was_emptied_and_formatted_anew_is_filled_and_votes_again(cluster: HandMade) -> None:
    first, second, third = cluster.hosts
    with cluster.running():
        fill(first, 0, 30)
        cluster.storages[third.address].__exit__(None, None, None)
        format_anew(cluster, third)
        cluster.publish()
        fill(first, 30, 40)
        cluster.start_storage(third)
        cluster.wait_serving(third)

        def votes() -> bool:
            found = caught_up(cluster, third)
            return found is not None and found.votes == found.owned == 1 << POWER

        wait_for(votes, "it votes on all that it owns", HEALED_S)
        wait_for(
            lambda: len({holds(cluster, host) for host in (first, second, third)}) == 1,
            "all three hold the same",
            HEALED_S,
        )
        # Another one may be gone now: the new disk's word counts.
        cluster.storages[second.address].__exit__(None, None, None)
        fill(first, 40, 45)
        with Swift((first.address, first.proxy_port), f"{ACCOUNT}:{USER}", KEY) as swift:
            answer = swift.ask("GET", f"{swift.path}/c/o019", headers={"X-Auth-Token": swift.token})
            assert (answer.status, answer.body) == (200, bytes([19]) * 3_000_000)
        cluster.start_storage(second)
        cluster.wait_serving(second)


@pytest.mark.timeout(300)
def test_a_ring_that_moves_is_settled_when_the_devices_say_so(tmp_path: Path) -> None:
    cluster = HandMade.make(tmp_path, hosts=3, devices=2)
    first = cluster.hosts[0]
    with cluster.running():
        fill(first, 0, 20)
        for builder in cluster.builders.values():
            builder.pretend_min_part_hours_passed()
            drained = builder.present()[0]
            builder.update(replace(drained, weight=0.0))
            builder.rebalance(1_800_000_000)
        cluster.publish()
        (ring,) = [builder for name, builder in cluster.builders.items() if name == "object-0"]
        assert ring.is_moving
        moving = load_ring(cluster.root / "rings" / "object-0.ring", 0)
        wait_for(lambda: not who_waits(moving, first.config), "all have caught up", HEALED_S)
        with Swift((first.address, first.proxy_port), f"{ACCOUNT}:{USER}", KEY) as swift:
            for number in range(1, 20):
                path = f"{swift.path}/c/o{number:03d}"
                assert swift.ask("GET", path, headers={"X-Auth-Token": swift.token}).status == 200


@pytest.mark.timeout(300)
def test_a_device_whose_other_owners_are_lost_votes_on_an_operators_word_only(tmp_path: Path) -> None:
    cluster = HandMade.make(tmp_path, hosts=1, devices=1, replicas=1)
    (host,) = cluster.hosts
    (name,) = host.device_ports
    with cluster.running():
        cluster.storages[host.address].__exit__(None, None, None)
        format_anew(cluster, host)
        cluster.publish()
        cluster.start_storage(host)
        cluster.wait_serving(host)
        votes = ["votes", name, "--config", str(host.config)]
        asked = CliRunner().invoke(device_tool, votes)
        assert (
            asked.exit_code,
            f"{name} has to catch up with 16 partitions of ring object-0" in asked.output,
        ) == (1, True)
        trusted = CliRunner().invoke(device_tool, [*votes, "--trust"])
        assert (trusted.exit_code, "votes on your word on 16 partitions" in trusted.output) == (1, True)
        assert CliRunner().invoke(device_tool, votes).output == f"{name} votes on all that it owns\n"
        found = caught_up(cluster, host)
        assert found is not None
        assert (found.votes, found.waiting) == (found.owned, ())


@pytest.mark.timeout(300)
def test_two_of_three_disks_that_were_emptied_are_told_as_such_and_one_word_brings_all_back(
    tmp_path: Path,
) -> None:
    cluster = HandMade.make(tmp_path, hosts=3, devices=1, jobs=OFTEN)
    first, second, third = cluster.hosts
    with cluster.running():
        fill(first, 0, 20)
        wait_for(
            lambda: len({holds(cluster, host) for host in cluster.hosts}) == 1, "all hold the same", HEALED_S
        )
        look = ["--config", str(first.config), "--json"]

        def is_told() -> bool:
            degraded = json.loads(CliRunner().invoke(recon_tool, look).stdout)["degraded"]
            return len(degraded) == 3 and all(counts == {"1": 1 << POWER} for counts in degraded.values())

        with Swift(
            (first.address, first.proxy_port), f"{ACCOUNT}:{USER}", KEY
        ) as swift:  # nobody signs in below
            for host in (second, third):
                cluster.storages[host.address].__exit__(None, None, None)
                format_anew(cluster, host)
            cluster.publish()
            for host in (second, third):
                cluster.start_storage(host)
                cluster.wait_serving(host)
            wait_for(is_told, "recon tells of one sound copy of everything", HEALED_S)
            asked = swift.ask("GET", f"{swift.path}/c/o011", headers={"X-Auth-Token": swift.token})
            assert asked.status == 503
        (name,) = second.device_ports
        votes = ["votes", name, "--config", str(second.config)]
        trusted = CliRunner().invoke(device_tool, [*votes, "--trust"])
        assert f"{name} votes on your word on 16 partitions of ring object-0\n" in trusted.output
        wait_for(
            lambda: (found := caught_up(cluster, third)) is not None and found.votes == found.owned,
            "the other one catches up by itself",
            HEALED_S,
        )
        with Swift((first.address, first.proxy_port), f"{ACCOUNT}:{USER}", KEY) as swift:
            for number in range(1, 20):
                path = f"{swift.path}/c/o{number:03d}"
                assert swift.ask("GET", path, headers={"X-Auth-Token": swift.token}).status == 200


def format_anew(cluster: HandMade, host: HandMadeHost) -> None:
    """Empty the disk of a host whose processes do not run, format it, and tell the builders its new uuid."""
    (name,) = host.device_ports
    directory = host.root / "devices" / name
    for part in directory.iterdir():
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    host.uuids[name] = format_device(directory)
    for builder in cluster.builders.values():
        (device,) = (device for device in builder.present() if device.name == name)
        builder.update(replace(device, uuid=host.uuids[name]))


def test_a_device_that_this_host_has_not_is_told(tmp_path: Path) -> None:
    cluster = HandMade.make(tmp_path, hosts=1, devices=1, replicas=1)
    config = str(cluster.hosts[0].config)
    strange = CliRunner().invoke(device_tool, ["votes", "strange", "--config", config])
    assert (strange.exit_code, "is named strange" in strange.output) == (2, True)
    (name,) = cluster.hosts[0].device_ports
    silent = CliRunner().invoke(device_tool, ["votes", name, "--config", config])
    assert (silent.exit_code, "start the device" in silent.output) == (2, True)
