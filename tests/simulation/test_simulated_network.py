"""The simulated network: its weather, its partitions, its dead, and what the RPC makes of them."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from swiftlike.limits import RpcLimits
from swiftlike.rpc.client import Client
from swiftlike.rpc.errors import StreamEnded
from swiftlike.rpc.service import Call, Service
from swiftlike.rpc.simulated import RepeatingTransport, SimulatedHost, SimulatedNetwork, Weather
from swiftlike.rpc.stream import ServedStream
from swiftlike.rpc.transport import Outcome, Reply, TcpAddress
from swiftlike.rpc.virtual_time import run_in_virtual_time

SECRET = b"the secret of the simulated cluster"
DEVICE = TcpAddress("device", 6200)
ROUGH = Weather(slow_chance=0.05, slow_s=0.3, loss_chance=0.02, reset_chance=0.01)

Scenario = Callable[["Cluster"], Coroutine[Any, Any, Any]]


class Cluster:
    """One proxy and some devices, which count what they are asked to do."""

    def __init__(self, network: SimulatedNetwork, stack: AsyncExitStack) -> None:
        self.network = network
        self.proxy = network.host("proxy")
        self.done: Counter[object] = Counter()
        self.stack = stack

    def start(self, *names: str, service: Callable[["Cluster"], Service] | None = None) -> None:
        for name in names:
            self.network.host(name, self.device(service or counting_service))

    def device(self, service: Callable[["Cluster"], Service]) -> Callable[[SimulatedHost], Awaitable[None]]:
        async def boot(host: SimulatedHost) -> None:
            async with host.server(service(self), SECRET) as server:
                await server.listen(TcpAddress(host.name, 6200))
                await asyncio.Event().wait()

        return boot

    async def client(self, limits: RpcLimits | None = None) -> Client:
        return await self.stack.enter_async_context(self.proxy.client(SECRET, limits))


def counting_service(cluster: Cluster) -> Service:
    service = Service()

    def plain(call: Call) -> Reply:
        cluster.done[call.header["id"]] += 1
        return Reply(header={"id": call.header["id"]})

    async def slow(call: Call) -> Reply:
        await asyncio.sleep(call.header["seconds"])
        return plain(call)

    async def upload(call: Call, stream: ServedStream) -> Reply:
        received = 0
        async for message in stream:
            received += len(message.body)
        cluster.done[call.header["id"]] += 1
        return Reply(header={"bytes": received})

    service.calls("do", plain)
    service.calls("slow", slow)
    service.streams("upload", upload)
    return service


def play(scenario: Scenario, *, seed: int = 1, weather: Weather | None = None) -> Any:
    """Run a scenario in virtual time and return what it returns."""

    async def main() -> Any:
        async with SimulatedNetwork(seed, weather) as network, AsyncExitStack() as stack:
            return await scenario(Cluster(network, stack))

    return run_in_virtual_time(main())


# --- one wire ---------------------------------------------------------------------------------------------------


def test_calls_of_one_turn_travel_together_and_so_do_their_replies() -> None:
    async def scenario(cluster: Cluster) -> list[int]:
        cluster.start("device")
        client = await cluster.client()
        await client.call(DEVICE, "do", {"id": 0}, deadline=10)
        before = len(cluster.network.trace)
        await asyncio.gather(
            *(client.call(DEVICE, "do", {"id": n}, b"x" * 100, deadline=10) for n in range(1, 51))
        )
        return [line[4] for line in list(cluster.network.trace)[before:]]

    requests, replies = play(scenario)
    assert requests > 50 * 100
    assert replies > 50 * 24


def test_one_wire_keeps_the_order_of_calls_and_different_wires_overtake_each_other() -> None:
    order: list[object] = []

    def remember(cluster: Cluster) -> Service:
        service = Service()

        def handler(call: Call) -> Reply:
            order.append(call.header["id"])
            return Reply()

        service.calls("do", handler)
        return service

    async def scenario(cluster: Cluster) -> None:
        cluster.start("a", "b", service=remember)
        client = await cluster.client()
        async with asyncio.TaskGroup() as group:
            for n in range(200):
                for name in ("a", "b"):
                    group.create_task(
                        client.call(TcpAddress(name, 6200), "do", {"id": (name, n)}, deadline=100)
                    )
                await asyncio.sleep(0.001)

    play(scenario, weather=Weather(latency_s=(0.001, 0.05)))
    for name in ("a", "b"):
        assert [entry for entry in order if entry[0] == name] == [(name, n) for n in range(200)]  # type: ignore[index]
    assert order != sorted(order, key=lambda entry: (entry[1], entry[0]))  # type: ignore[index]


def test_lost_packets_are_sent_again_and_only_delay() -> None:
    async def scenario(cluster: Cluster) -> tuple[set[Outcome], float]:
        cluster.start("device")
        client = await cluster.client()
        replies = [await client.call(DEVICE, "do", {"id": n}, deadline=client.now() + 60) for n in range(200)]
        return {reply.outcome for reply in replies}, client.now()

    outcomes, took_s = play(scenario, weather=Weather(loss_chance=0.1))
    assert outcomes == {Outcome.OK}
    assert took_s > 200 * 2 * 0.1 * 0.2 / 2


# --- partitions -------------------------------------------------------------------------------------------------


def test_a_partition_leaves_unknown_and_a_new_connection_works_once_it_is_mended() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("device")
        client = await cluster.client()
        assert (
            await client.call(DEVICE, "do", {"id": "before"}, deadline=client.now() + 1)
        ).outcome is Outcome.OK
        cluster.network.partition(["proxy"], ["device"])
        reply = await client.call(DEVICE, "do", {"id": "during"}, deadline=client.now() + 1)
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "timeout")
        await asyncio.sleep(5)  # the ping finds out
        reply = await client.call(DEVICE, "do", {"id": "later"}, deadline=client.now() + 1)
        assert reply.outcome is Outcome.NOT_SENT
        await asyncio.sleep(600)
        cluster.network.mend()
        await asyncio.sleep(1)
        assert (
            await client.call(DEVICE, "do", {"id": "after"}, deadline=client.now() + 1)
        ).outcome is Outcome.OK
        assert cluster.done["later"] == 0

    play(scenario)


def test_a_cut_of_the_way_back_leaves_done_work_unknown() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("device")
        client = await cluster.client()
        await client.call(DEVICE, "do", {"id": "first"}, deadline=client.now() + 1)
        cluster.network.cut(["device"], ["proxy"])
        reply = await client.call(DEVICE, "do", {"id": "second"}, deadline=client.now() + 1)
        assert reply.outcome is Outcome.UNKNOWN
        assert cluster.done["second"] == 1

    play(scenario)


def test_a_short_cut_only_delays() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("device")
        client = await cluster.client()
        await client.call(DEVICE, "do", {"id": "first"}, deadline=client.now() + 1)
        cluster.network.partition(["device"], ["proxy"])
        call = asyncio.create_task(client.call(DEVICE, "do", {"id": "second"}, deadline=client.now() + 5))
        await asyncio.sleep(1)
        assert not call.done()
        cluster.network.mend()
        assert (await call).outcome is Outcome.OK

    play(scenario)


# --- death ------------------------------------------------------------------------------------------------------


def test_a_killed_process_is_noticed_at_once_and_found_again_after_its_restart() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("device")
        client = await cluster.client()
        call = asyncio.create_task(
            client.call(DEVICE, "slow", {"id": 1, "seconds": 5}, deadline=client.now() + 60)
        )
        await asyncio.sleep(1)
        await cluster.network.crash("device")
        reply = await call
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "lost")
        assert client.now() < 2
        assert (
            await client.call(DEVICE, "do", {"id": 2}, deadline=client.now() + 1)
        ).outcome is Outcome.NOT_SENT
        cluster.network.restart("device")
        await asyncio.sleep(0.1)
        assert (await client.call(DEVICE, "do", {"id": 3}, deadline=client.now() + 1)).outcome is Outcome.OK
        assert cluster.done == {3: 1}

    play(scenario)


def test_a_host_without_power_is_silent_until_it_is_back() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("device")
        client = await cluster.client()
        await client.call(DEVICE, "do", {"id": 1}, deadline=client.now() + 1)
        await cluster.network.crash("device", silent=True)
        reply = await client.call(DEVICE, "do", {"id": 2}, deadline=client.now() + 1)
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "timeout")
        cluster.network.restart("device")
        await asyncio.sleep(1)
        reply = await client.call(DEVICE, "do", {"id": 3}, deadline=client.now() + 1)
        assert reply.outcome is Outcome.OK
        assert cluster.done == {1: 1, 3: 1}

    play(scenario)


def test_what_is_left_of_a_crashed_host_reaches_nobody() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("device")

        async def stubborn(host: SimulatedHost) -> None:
            async with host.client(SECRET) as client:
                await client.call(DEVICE, "do", {"id": "alive"}, deadline=client.now() + 1)
                try:
                    await asyncio.Event().wait()
                finally:
                    reply = await client.call(DEVICE, "do", {"id": "ghost"}, deadline=client.now() + 1)
                    assert reply.outcome is Outcome.NOT_SENT

        cluster.network.host("coordinator", stubborn)
        await asyncio.sleep(1)
        await cluster.network.crash("coordinator")
        await asyncio.sleep(1)
        assert cluster.done == {"alive": 1}

    play(scenario)


def test_a_host_that_fails_by_itself_fails_the_simulation() -> None:
    async def faulty(host: SimulatedHost) -> None:
        raise ZeroDivisionError("a bug on purpose")

    async def scenario(cluster: Cluster) -> None:
        cluster.network.host("faulty", faulty)
        await asyncio.sleep(10)

    with pytest.raises(ExceptionGroup) as failed:
        play(scenario)
    assert failed.group_contains(ZeroDivisionError)


# --- repetition -------------------------------------------------------------------------------------------------


def test_a_lingering_repetition_is_done_twice_and_answered_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("device")
        async with RepeatingTransport(
            await cluster.client(), Random(5), {"do"}, chance=0.5, later_s=3
        ) as transport:
            for n in range(40):
                reply = await transport.call(DEVICE, "do", {"id": n}, deadline=transport.now() + 1)
                assert reply.header == {"id": n}
                reply = await transport.call(
                    DEVICE, "slow", {"id": -n, "seconds": 0}, deadline=transport.now() + 1
                )
                assert reply.outcome is Outcome.OK
            async with transport.open_stream(
                DEVICE, "upload", {"id": "u"}, deadline=transport.now() + 1
            ) as stream:
                assert (await stream.finish()).outcome is Outcome.OK
            await asyncio.sleep(10)
        twice = {key for key, count in cluster.done.items() if count == 2 and key != 0}
        assert transport.repeated == sum(1 for n in range(1, 40) if n in twice) + (cluster.done[0] == 3)
        assert 5 < transport.repeated < 35
        assert all(cluster.done[-n] == 1 for n in range(1, 40))

    play(scenario)


# --- the whole --------------------------------------------------------------------------------------------------


async def stormy_day(cluster: Cluster) -> tuple[str, Counter[str]]:
    """Calls and uploads to three devices that crash and return, through partitions that come and go; check every outcome."""
    names = ("a", "b", "c")
    cluster.start(*names)
    network, random = cluster.network, Random(network_seed := cluster.network.random.random())
    assert 0 <= network_seed < 1
    client = await cluster.client(RpcLimits(stream_stall_s=2, ping_s=1))
    outcomes: Counter[str] = Counter()

    def judge(key: str, outcome: Outcome) -> None:
        outcomes[outcome.name] += 1
        match outcome:
            case Outcome.OK:
                assert cluster.done[key] == 1, f"{key} was answered and done {cluster.done[key]} times"
            case Outcome.UNKNOWN:
                pass  # judged at the end: at most once
            case _:
                not_begun.append(key)

    not_begun: list[str] = []

    async def call(number: int) -> None:
        peer, key = TcpAddress(random.choice(names), 6200), f"call {number}"
        header = {"id": key, "seconds": random.expovariate(10)}
        method = random.choice(("do", "slow"))
        reply = await client.call(
            peer, method, header, b"x" * 500, deadline=client.now() + random.uniform(0.01, 2)
        )
        judge(key, reply.outcome)

    async def upload(number: int) -> None:
        peer, key = TcpAddress(random.choice(names), 6200), f"upload {number}"
        try:
            async with client.open_stream(peer, "upload", {"id": key}, deadline=client.now() + 3) as stream:
                for _ in range(6):
                    await stream.send(b"y" * 200_000)
                reply = await stream.finish()
        except StreamEnded as ended:
            reply = ended.reply
        if reply.outcome is Outcome.OK:
            assert reply.header == {"bytes": 1_200_000}
        judge(key, reply.outcome)

    async def crashes() -> None:
        while True:
            await asyncio.sleep(random.expovariate(0.5))
            name = random.choice(names)
            await network.crash(name, silent=random.random() < 0.5)
            await asyncio.sleep(random.uniform(0.1, 2))
            network.restart(name)

    trouble = [asyncio.create_task(crashes()), asyncio.create_task(network.storm(("proxy", *names), 2, 1))]
    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(upload(number) if number % 20 == 0 else call(number))
            await asyncio.sleep(random.expovariate(20))
    for task in trouble:
        task.cancel()
    network.mend()
    await asyncio.sleep(60)
    assert [key for key in not_begun if cluster.done[key]] == [], "not sent or refused, and done all the same"
    assert max(cluster.done.values()) == 1, "nothing is done twice"
    return network.trace_digest(), outcomes


@pytest.mark.parametrize("seed", range(12))
def test_in_any_storm_every_outcome_tells_the_truth(seed: int) -> None:
    """OK: done once. NOT_SENT, REFUSED, BUSY: never done. UNKNOWN: at most once. A failing seed replays by itself."""
    _, outcomes = play(stormy_day, seed=seed, weather=ROUGH)
    assert sum(outcomes.values()) == 300
    assert outcomes["OK"] > 30
    assert outcomes["UNKNOWN"] > 0


def test_the_same_seed_gives_the_same_run_to_the_last_byte_and_another_seed_another() -> None:
    first, again, other = (play(stormy_day, seed=seed, weather=ROUGH) for seed in (3, 3, 4))
    assert first == again
    assert first[0] != other[0]


def test_the_same_seed_gives_the_same_run_in_another_process() -> None:
    """Neither addresses nor the salt of string hashes may decide anything."""
    code = (
        "from tests.simulation.test_simulated_network import ROUGH, play, stormy_day;"
        "print(play(stormy_day, seed=3, weather=ROUGH)[0])"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": salt},
        ).stdout
        for salt in ("1", "2")
    }
    assert digests == {play(stormy_day, seed=3, weather=ROUGH)[0] + "\n"}
