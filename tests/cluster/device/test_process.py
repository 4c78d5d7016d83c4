"""Real processes: what is acknowledged outlives them, and what stops them is said in a sentence."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from shutil import copytree, rmtree

import pytest

from storage_node.exits import Exit
from storage_node.identity import lock_device, unlock_device
from storage_node.process import read_us
from swiftlike.entries import Entry
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.transport import Outcome
from swiftlike.timestamps import Ballot, Timestamp, WriteId
from tests.cluster.device.hosts import (
    OBJECTS,
    POWER,
    RPC_SECRET,
    TABLES,
    Host,
    Running,
    client_of,
    start_device,
    start_supervisor,
    vote,
    wait_serving,
    wait_until,
)

Run = Callable[[Running], Running]
_serial = count(1)
FOUNDING = bytes([(1 << (1 << POWER)) - 1])
"""Every partition is founding."""


def entry_of(body: bytes, **fields: object) -> Entry:
    """An entry from this host's clock."""
    micros = read_us()
    write_id = WriteId(Timestamp.of(micros, next(_serial)))
    values = {"ballot": Ballot.of(micros, next(_serial)), "write_id": write_id, "modified": micros}
    return Entry(**{**values, "body_id": write_id, "size": len(body), **fields})  # type: ignore[arg-type]


def path_of(name: str) -> bytes:
    return b"acc\0con\0" + name.encode()


def failing_sync(host: Host) -> str:
    """Code that makes syncs fail for as long as there is a file named bad."""
    return (
        "from pathlib import Path; from storage_node.disk import Disk; whole = Disk._flush_file\n"
        "def _flush_file(self, fd):\n"
        f"    if Path({str(host.root / 'bad')!r}).exists(): raise OSError(5, 'EIO')\n"
        "    whole(self, fd)\n"
        "Disk._flush_file = _flush_file\n"
    )


async def put(client: NodeClient, name: str, body: bytes) -> bool:
    """Put an object; say whether that is acknowledged."""
    try:
        answer = await client.offer(OBJECTS, path_of(name), entry_of(body), body)
    except NodeFailed as failed:
        if failed.reply.outcome is Outcome.ERROR:
            raise
        return False
    assert answer.counts
    assert answer.votes
    return True


async def test_a_device_process_serves_over_its_unix_socket_and_over_tcp(host: Host, run: Run) -> None:
    run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
        await vote(client)
        assert await put(client, "o", b"hello")
    async with Client(SocketNetwork(), RPC_SECRET) as transport:
        found = await NodeClient(transport, host.tcp("d1"), lambda table: 1).get(OBJECTS, path_of("o"))
    assert (found.body, found.votes, found.whole) == (b"hello", True, True)


async def test_everything_acknowledged_outlives_a_dozen_kills_under_load(host: Host, run: Run) -> None:
    run(start_supervisor(host))
    acknowledged: dict[str, bytes] = {}
    ended = asyncio.Event()
    async with client_of(host, timeout_s=3) as client:
        await wait_serving(client)
        await vote(client)

        async def load(lane: int) -> None:
            for number in count():
                if ended.is_set():
                    return
                name, body = f"{lane}-{number}", os.urandom(200 + 997 * lane)
                if await put(client, name, body):
                    acknowledged[name] = body
                else:
                    await asyncio.sleep(0.02)

        async def kill() -> None:
            dead: set[int] = set()
            for _ in range(12):
                pid = await wait_serving(client)
                assert pid not in dead
                goal = len(acknowledged) + 30
                await wait_until(lambda goal=goal: len(acknowledged) >= goal)  # type: ignore[misc]
                os.kill(pid, signal.SIGKILL)
                dead.add(pid)
            ended.set()

        async with asyncio.TaskGroup() as group:
            for lane in range(8):
                group.create_task(load(lane))
            group.create_task(kill())
        await wait_serving(client)
        for name, body in acknowledged.items():
            found = await client.get(OBJECTS, path_of(name))
            assert (found.body, found.whole) == (body, True), name
    assert len(acknowledged) >= 12 * 30


async def test_sigterm_lets_a_stream_at_work_finish_and_takes_no_more(host: Host, run: Run) -> None:
    process = run(start_device(host))
    body = os.urandom(3_000_000)
    entry = entry_of(body)
    async with client_of(host) as client, client_of(host) as late:
        await wait_serving(client)
        await wait_serving(late)
        async with client.put_stream(OBJECTS, path_of("large"), entry.body_id) as stream:
            await stream.send(body[:1_000_000])
            process.send(signal.SIGTERM)
            outcome = await _outcome_when_it_ends(late)
            assert outcome in (Outcome.REFUSED, Outcome.NOT_SENT)
            await stream.send(body[1_000_000:])
            assert (await stream.commit(entry)).counts
    assert await process.wait() == Exit.DRAINED
    assert "drained" in process.log()
    run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
        async with client.get_stream(OBJECTS, path_of("large")) as (found, chunks):
            assert found == entry
            assert b"".join([bytes(chunk) async for chunk in chunks]) == body


async def _outcome_when_it_ends(client: NodeClient) -> Outcome:
    """Return how the first call ends that a draining device does not answer."""
    async with asyncio.timeout(10):
        while True:
            try:
                await client.health()
            except NodeFailed as failed:
                return failed.reply.outcome
            await asyncio.sleep(0.01)


async def test_a_stream_that_never_ends_is_cut_at_the_drain_deadline(host: Host, run: Run) -> None:
    host.settings["drain_s"] = 0.3
    host.write()
    process = run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
        async with client.put_stream(OBJECTS, path_of("large"), entry_of(b"").body_id) as stream:
            await stream.send(bytes(2_000_000))
            process.send(signal.SIGTERM)
            assert await process.wait() == Exit.DRAINED
            with pytest.raises(NodeFailed) as cut:
                await stream.commit(entry_of(b""))
        assert cut.value.reply.outcome is Outcome.UNKNOWN
    assert "the deadline passed" in process.log()
    assert list((host.device_path("d1") / "staging").iterdir()) == []


async def test_a_failed_sync_ends_the_process_with_its_own_exit_code_and_the_device_loses_its_votes(
    host: Host, run: Run
) -> None:
    process = run(start_device(host, prelude=failing_sync(host)))
    async with client_of(host) as client:
        await wait_serving(client)
        await vote(client)
        assert await put(client, "before", b"sound")
        (host.root / "bad").touch()
        with pytest.raises(NodeFailed) as failed:
            await client.offer(OBJECTS, path_of("o"), entry_of(b"x"), b"x")
        assert failed.value.reply.outcome is Outcome.UNKNOWN
    assert await process.wait() == Exit.SYNC_FAILED
    (host.root / "bad").unlink()
    run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
        assert not (await client.get(OBJECTS, path_of("o"))).votes


def ending(module: str, name: str) -> str:
    """Code that makes a coroutine function of a module end at once, as it never does."""
    return f"import {module} as of\nasync def ended(*_): raise RuntimeError('ended')\nof.{name} = ended\n"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (("storage_node.workforce", "Auditor.run"), "the device is not audited any more"),
        (("storage_node.process", "watch"), "the device is not watched any more"),
        (("storage_node.process", "RingSet.run"), "the rings are not followed any more"),
    ],
    ids=["job", "watch", "rings"],
)
async def test_a_task_that_ends_by_itself_ends_the_process_with_its_own_exit_code(
    host: Host, run: Run, task: tuple[str, str], said: str
) -> None:
    process = run(start_device(host, prelude=ending(*task)))
    assert await process.wait() == Exit.TASK_ENDED
    assert said in process.log()
    assert "closed" in process.log(), "it drained"


async def test_a_device_that_was_emptied_under_its_process_is_not_served_from_deleted_files(
    host: Host, run: Run
) -> None:
    process = run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
        await vote(client)
        assert await put(client, "before", b"sound")
    for part in host.device_path("d1").iterdir():
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert await process.wait() == Exit.GONE
    assert "is not there any more" in process.log()
    again = run(start_device(host))
    assert await again.wait() == Exit.REFUSED
    assert "holds no device.toml" in again.log()


async def test_an_index_or_a_directory_that_another_one_replaced_is_not_served_either(
    host: Host, run: Run
) -> None:
    for name in ("index/data.mdb", "volumes"):
        process = run(start_device(host))
        async with client_of(host) as client:
            await wait_serving(client)
        path = host.device_path("d1") / name
        aside = path.with_name("aside")
        path.rename(aside)
        shutil.copytree(aside, path) if aside.is_dir() else shutil.copy(aside, path)
        assert await process.wait() == Exit.GONE
        assert f"{name} is not the one that was opened" in process.log()
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        aside.rename(path)
    # What was only away for a while is the device that it was.
    run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)


async def test_a_process_that_is_told_so_takes_all_votes_away_before_it_serves_or_does_not_serve(
    host: Host, run: Run
) -> None:
    first = run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
        await vote(client)
    first.end()
    no_commit = (
        "from storage_node.errors import DeviceFailed; from storage_node.index import IndexChange\n"
        "def commit(self): raise DeviceFailed('the index could not be committed')\n"
        "IndexChange.commit = commit\n"
    )
    refused = run(start_device(host, prelude=no_commit, options=["--without-votes"]))
    assert await refused.wait() == Exit.REFUSED
    assert "could not be committed" in refused.log()
    for options in (["--without-votes"], []):
        process = run(start_device(host, options=options))
        async with client_of(host) as client:
            await wait_serving(client)
            assert await votes_of(client) == {False}
        process.end()


async def votes_of(client: NodeClient) -> set[bool]:
    """Say whether a device votes, on each partition of each table."""
    return {(await client.standing(table, number)).votes for table in TABLES for number in range(1 << POWER)}


async def test_a_fresh_device_on_a_founding_ring_votes_until_a_sync_fails_and_never_again_by_itself(
    host: Host, run: Run
) -> None:
    host.write_rings(founding=FOUNDING)
    process = run(start_device(host, prelude=failing_sync(host)))
    async with client_of(host) as client:
        await wait_serving(client)
        assert await votes_of(client) == {True}
        assert await put(client, "before", b"sound")
        (host.root / "bad").touch()
        with pytest.raises(NodeFailed):
            await client.offer(OBJECTS, path_of("o"), entry_of(b"x"), b"x")
    assert await process.wait() == Exit.SYNC_FAILED
    (host.root / "bad").unlink()
    for _ in range(2):
        again = run(start_device(host))
        async with client_of(host) as client:
            await wait_serving(client)
            assert await votes_of(client) == {False}
        again.end()


async def test_a_device_votes_once_a_ring_that_it_takes_under_way_names_its_uuid(
    host: Host, run: Run
) -> None:
    uuid = host.uuids.pop("d1")
    ancestors = host.write_rings(founding=FOUNDING)
    process = run(start_device(host))
    async with client_of(host, epoch=1) as client:
        await wait_serving(client)
        assert await votes_of(client) == {False}, "the ring does not know whose device it is"
    host.uuids["d1"] = uuid
    host.write_rings(2, ancestors, founding=FOUNDING)
    process.send(signal.SIGHUP)
    await wait_until(lambda: process.log().count("founding partitions of ring") == len(TABLES))
    async with client_of(host, epoch=2) as client:
        assert await votes_of(client) == {True}


async def test_children_die_with_their_supervisor(host: Host, run: Run) -> None:
    supervisor = run(start_supervisor(host))
    async with client_of(host) as client:
        pid = await wait_serving(client)
        supervisor.send(signal.SIGKILL)
        await supervisor.wait()
        await wait_until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))
    unlock_device(lock_device(host.device_path("d1")))


def _is_zombie(pid: int) -> bool:
    """Nobody may be there to collect an orphan in a container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_sigterm_ends_the_supervisor_after_its_children(host: Host, run: Run) -> None:
    supervisor = run(start_supervisor(host))
    async with client_of(host) as client:
        await wait_serving(client)
    supervisor.send(signal.SIGTERM)
    assert await supervisor.wait() == 0
    unlock_device(lock_device(host.device_path("d1")))
    assert list((host.root / "run").iterdir()) == []


async def test_bad_devices_are_refused_in_a_sentence_while_the_good_one_serves(
    tmp_path: Path, run: Run
) -> None:
    host = Host.make(tmp_path, devices=5)
    locked, unmounted, foreign, busy = host.names[1:]
    lock = lock_device(host.device_path(locked))
    rmtree(host.device_path(unmounted))
    host.device_path(unmounted).mkdir()
    rmtree(host.device_path(foreign) / "index")
    copytree(host.device_path("d1") / "index", host.device_path(foreign) / "index")
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", host.ports[4]))
        squatter.listen()
        supervisor = run(start_supervisor(host))
        async with client_of(host) as client:
            await wait_serving(client)
            for sentence in (
                f"{host.device_path(locked)} is in use by another process: stop that one first",
                f"{host.device_path(unmounted)} holds no device.toml: mount its disk, or format it",
                f"{host.device_path(foreign)}: its index belongs to device",
                f"device {busy} cannot listen on 127.0.0.1:{host.ports[4]} (",
            ):
                await wait_until(lambda sentence=sentence: sentence in supervisor.log())  # type: ignore[misc]
            assert (await client.health())["state"] == "serving"
            # What was wrong with one is put right, and it is tried again by itself.
            unlock_device(lock)
            async with client_of(host, locked) as recovered:
                await wait_serving(recovered)


async def test_without_a_single_usable_device_the_supervisor_gives_the_reasons_and_exits_2(
    tmp_path: Path, run: Run
) -> None:
    host = Host.make(tmp_path, devices=2)
    for name in host.names:
        (host.device_path(name) / "device.toml").unlink()
    supervisor = run(start_supervisor(host))
    assert await supervisor.wait() == 2
    last = supervisor.log().splitlines()[-1]
    for name in host.names:
        assert f"{host.device_path(name)} holds no device.toml" in last


async def test_two_disks_that_were_swapped_are_refused(tmp_path: Path, run: Run) -> None:
    host = Host.make(tmp_path, devices=2)
    host.device_path("d1").rename(tmp_path / "aside")
    host.device_path("d2").rename(host.device_path("d1"))
    (tmp_path / "aside").rename(host.device_path("d2"))
    process = run(start_device(host, "d1"))
    assert await process.wait() == Exit.REFUSED
    assert "mount each disk in its own place" in process.log()


async def test_a_missing_ring_is_refused_by_name(host: Host, run: Run) -> None:
    (host.root / "rings" / "container.ring").unlink()
    process = run(start_device(host))
    assert await process.wait() == Exit.REFUSED
    assert "container.ring" in process.log()


async def test_sighup_takes_up_new_rings_new_devices_and_lets_go_of_old_ones(
    tmp_path: Path, run: Run
) -> None:
    host = Host.make(tmp_path, devices=2)
    host.write(["d1"])
    supervisor = run(start_supervisor(host))
    async with client_of(host) as client, client_of(host, "d2") as second:
        pid = await wait_serving(client)
        host.write_rings(2, host.write_rings(1))
        host.write()
        supervisor.send(signal.SIGHUP)
        await wait_serving(second)
        await _until_epoch(client, 2)
        host.write(["d2"])
        supervisor.send(signal.SIGHUP)
        await wait_until(lambda: not Path(f"/proc/{pid}").exists())
        assert (await second.health())["state"] == "serving"


async def _until_epoch(client: NodeClient, epoch: int) -> None:
    async with asyncio.timeout(20):
        while set((await client.health())["epochs"].values()) != {epoch}:  # noqa: ASYNC110 (another process's)
            await asyncio.sleep(0.02)


async def test_a_file_that_became_bad_is_told_at_sighup_and_the_old_settings_stay(
    host: Host, run: Run
) -> None:
    supervisor = run(start_supervisor(host))
    async with client_of(host) as client:
        pid = await wait_serving(client)
        host.settings["dran_s"] = 3
        host.write()
        supervisor.send(signal.SIGHUP)
        await wait_until(lambda: "did you mean drain_s?" in supervisor.log())
        assert (await client.health())["pid"] == pid


async def test_what_devices_take_at_their_start_only_starts_them_anew_at_sighup(host: Host, run: Run) -> None:
    supervisor = run(start_supervisor(host))
    async with client_of(host) as client:
        pid = await wait_serving(client)
        host.settings |= {"drain_s": 4.0, "restart_max_s": 0.3}
        host.write()
        supervisor.send(signal.SIGHUP)
        await wait_until(lambda: "reloaded log_level, drain_s" in supervisor.log())
        assert (await client.health())["pid"] == pid
        host.write_cluster("reclaim_age_s = 7200\n")
        supervisor.send(signal.SIGHUP)
        await wait_until(lambda: not Path(f"/proc/{pid}").exists())
        assert await wait_serving(client) != pid


async def test_metrics_and_health_tell_of_the_device(host: Host, run: Run) -> None:
    port = host.ports[0] + 1
    host.extra["d1"] = f"metrics_port = {port}"
    host.write()
    run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
        await vote(client)
        assert await put(client, "o", b"hello")
        assert (await client.get(OBJECTS, path_of("o"))).body == b"hello"
        text = (await client.metrics()).decode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        scraped = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        health = await client.health()
        stats = await client.stats()
    assert 'swiftlike_device_answers_total{ended="ok",method="offer"} 1.0' in text
    assert 'swiftlike_device_answers_total{ended="ok",method="offer"} 1.0' in scraped
    assert "swiftlike_device_warm_reads_total 1.0" in text
    assert (health["state"], health["uuid"], health["epochs"]["object-0"]) == (
        "serving",
        str(host.uuids["d1"]),
        1,
    )
    assert stats["answers"]["get ok"] == 1


async def test_a_line_of_the_log_is_one_line_with_its_device(host: Host, run: Run) -> None:
    process = run(start_device(host))
    async with client_of(host) as client:
        await wait_serving(client)
    lines = process.log().splitlines()
    assert lines
    assert all(" device=d1 pid=" in line and " | " in line for line in lines)
