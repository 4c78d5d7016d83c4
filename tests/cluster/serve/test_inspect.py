"""swiftlike-inspect and swiftlike-dispersion beside real devices: sound, behind, damaged, on a handoff, and nowhere."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ring.file import load_ring
from swiftlike.config import load_cluster
from swiftlike.entries import Entry
from swiftlike.node_calls import CONTAINERS, RowOffer
from swiftlike.node_client import NodeClient
from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.transport import TcpAddress
from swiftlike.timestamps import Ballot, Timestamp, WriteId
from tests.cluster.serve.clusters import KEY, OFTEN, USER, HandMade, HandMadeHost, wait_for
from tests.cluster.serve.swift_client import Swift
from tools.dispersion import main as dispersion
from tools.inspection import main as inspect

HEALED_S = 60.0
ACCOUNT = "AUTH_acme"
"""As URLs name it."""
SEED = 0xC0FFEE00
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HandMade]:
    """Four hosts of one device each, three of which own any partition, with some objects; tests leave it whole."""
    made = HandMade.make(tmp_path_factory.mktemp("inspect"), hosts=4, devices=1, jobs=OFTEN)
    with made.running():
        with signed_in(made) as swift:
            assert put(swift, "", b"") in (201, 202)
            for number in range(20):
                assert put(swift, f"/small{number}", b"small" * number) == 201
            assert put(swift, "/large", bytes(3_000_000)) == 201
        wait_for(
            lambda: run(made, inspect, "AUTH_acme/con/large").exit_code == 0, "all owners hold it", HEALED_S
        )
        yield made


def signed_in(cluster: HandMade) -> Swift:
    host = cluster.hosts[0]
    return Swift((host.address, host.proxy_port), f"acme:{USER}", KEY)


def put(swift: Swift, name: str, body: bytes) -> int:
    return swift.ask("PUT", f"{swift.path}/con{name}", body, {"X-Auth-Token": swift.token}).status


def run(cluster: HandMade, tool: click.Command, *arguments: str) -> Result:
    result = CliRunner().invoke(tool, [*arguments, "--config", str(cluster.hosts[0].config)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def told(cluster: HandMade, tool: click.Command, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = run(cluster, tool, *arguments, "--json")
    document: dict[str, Any] = json.loads(result.stdout)
    return result.exit_code, document


def owners_of(cluster: HandMade, name: bytes) -> list[HandMadeHost]:
    """The hosts whose devices own an object of the container."""
    ring = load_ring(cluster.root / "rings" / "object-0.ring", SEED)
    owners = ring.primaries(ring.partition_of(ACCOUNT.encode(), b"con", name))
    return [host for host in cluster.hosts for owner in owners if owner.host == host.address]


def stopped(cluster: HandMade, host: HandMadeHost) -> None:
    cluster.storages[host.address].__exit__(None, None, None)


def started(cluster: HandMade, host: HandMadeHost) -> None:
    cluster.start_storage(host)
    cluster.wait_serving(host)


def test_each_copy_of_an_object_is_told_with_its_version_and_read_back(cluster: HandMade) -> None:
    code, document = told(cluster, inspect, "AUTH_acme/con/large")
    (ring,) = document["rings"]
    assert (code, document["well"], ring["sound_copies"], ring["owners"]) == (0, True, 3, 3)
    assert {copy["body"] for copy in ring["copies"]} == {"sound"}
    assert {copy["stored_bytes"] for copy in ring["copies"]} == {3_000_000}
    assert len({copy["write_id"] for copy in ring["copies"]}) == 1
    assert (ring["handoffs_asked"], ring["handoffs_silent"]) == (1, 0)
    shown = run(cluster, inspect, "AUTH_acme/con/large").stdout
    assert "3 of 3 owners hold it" in shown
    _, unread = told(cluster, inspect, "AUTH_acme/con/large", "--no-read")
    assert {copy["body"] for copy in unread["rings"][0]["copies"]} == {"unread"}
    for path in ("AUTH_acme/con", "AUTH_acme/con/small0"):
        assert told(cluster, inspect, path)[0] == 0, path
    by_key = told(cluster, inspect, "s3://con/large")
    assert by_key[1]["rings"][0]["newest"] == ring["newest"], "a legal name is a bucket, whoever made it"


def test_a_body_that_rots_is_found_by_its_device_and_is_sound_again_soon(cluster: HandMade) -> None:
    owner = owners_of(cluster, b"large")[0]
    (name,) = owner.device_ports
    (file,) = [path for path in (owner.root / "devices" / name / "files").rglob("*") if path.is_file()]
    with file.open("r+b") as opened:
        opened.seek(1_000_000)
        opened.write(b"rot")
    code, document = told(cluster, inspect, "AUTH_acme/con/large")
    (ring,) = document["rings"]
    assert (code, ring["sound_copies"]) == (1, 2)
    assert [copy["body"] for copy in ring["copies"]].count("damaged") == 1
    assert f"/{name} held a damaged body: it is set aside" in "".join(document["warnings"])
    wait_for(
        lambda: run(cluster, inspect, "AUTH_acme/con/large").exit_code == 0, "it was brought back", HEALED_S
    )


def test_what_is_written_while_an_owner_is_down_is_found_on_a_handoff_until_it_went_back(
    cluster: HandMade,
) -> None:
    owner = owners_of(cluster, b"late")[-1]
    if owner is cluster.hosts[0]:
        owner = owners_of(cluster, b"late")[1]  # the first host's proxy is the one that is asked
    stopped(cluster, owner)
    with signed_in(cluster) as swift:
        assert put(swift, "/late", b"late") == 201
    code, document = told(cluster, inspect, "AUTH_acme/con/late")
    (ring,) = document["rings"]
    assert (code, ring["sound_copies"]) == (1, 2)
    roles = [(copy["role"], copy["answers"]) for copy in ring["copies"]]
    assert sorted(roles) == [("handoff", True), ("owner", False), ("owner", True), ("owner", True)]
    assert any("does not answer" in warning for warning in document["warnings"])
    code, shares = told(cluster, dispersion)
    assert (code, shares["well"], len(shares["silent"])) == (1, False, 1)
    assert shares["objects"]["partly"] > 0
    assert shares["objects"]["not_there"] == 0
    assert "/late" in "".join(each["path"] for each in shares["objects"]["worst"])
    started(cluster, owner)

    def is_back() -> bool:
        code, document = told(cluster, inspect, "AUTH_acme/con/late")
        return code == 0 and len(document["rings"][0]["copies"]) == 3

    wait_for(is_back, "all owners hold it and the handoff does not", HEALED_S)


def test_what_was_deleted_and_what_never_was_are_told_apart(cluster: HandMade) -> None:
    with signed_in(cluster) as swift:
        assert put(swift, "/gone", b"gone") == 201
        answer = swift.ask("DELETE", f"{swift.path}/con/gone", headers={"X-Auth-Token": swift.token})
        assert answer.status == 204
    code, document = told(cluster, inspect, "AUTH_acme/con/gone")
    assert (code, document["found"], document["warnings"][0]) == (1, False, "it was deleted")
    code, document = told(cluster, inspect, "AUTH_acme/con/never")
    assert (code, document["warnings"]) == (1, ["no device that answers holds it"])
    assert run(cluster, inspect, "s3://nobodys/key").exit_code == 2
    assert run(cluster, inspect, "AUTH_acme//key").exit_code == 2


def test_a_sample_of_what_is_listed_is_all_there_and_what_is_lost_everywhere_is_missed(
    cluster: HandMade,
) -> None:
    wait_for(lambda: run(cluster, dispersion).exit_code == 0, "all is at all of its owners", HEALED_S)
    code, document = told(cluster, dispersion, "--seed", "7")
    found = document["objects"]
    assert (code, found["not_there"], found["partly"], found["fully_percent"]) == (0, 0, 0, 100.0)
    assert found["fully"] == found["sampled"] >= 20
    assert document["containers"]["sampled"] >= 1
    assert told(cluster, dispersion, "--seed", "7", "--sample", "5")[1]["objects"]["sampled"] == 5
    list_what_is_nowhere(cluster)
    code, document = told(cluster, dispersion)
    assert (code, document["objects"]["not_there"]) == (1, 1)
    assert document["objects"]["worst"] == [{"path": "AUTH_acme/con/nowhere", "copies": 0, "owners": 3}]
    assert "0 of 3 copies: AUTH_acme/con/nowhere" in run(cluster, dispersion).stdout


def list_what_is_nowhere(cluster: HandMade) -> None:
    """Give the container a row whose object no device has."""
    ring = load_ring(cluster.root / "rings" / "container.ring", SEED)

    async def main() -> None:
        async with Client(
            SocketNetwork(), load_cluster(cluster.root / "cluster.toml").rpc_secret
        ) as transport:
            for owner in ring.primaries(ring.partition_of(ACCOUNT.encode(), b"con")):
                client = NodeClient(transport, TcpAddress(owner.host, owner.port), lambda table: ring.epoch)
                register, _, _ = await client.read(CONTAINERS, f"{ACCOUNT}\0con".encode())
                assert register is not None
                assert register.entry is not None
                incarnation = register.entry.incarnation
                ballot = Ballot(bytes(incarnation) + bytes(incarnation))
                write_id = WriteId(Timestamp.of(incarnation.micros, 5))
                row = Entry(ballot, write_id, incarnation.micros, size=4)
                await client.upsert_rows(CONTAINERS, [RowOffer(f"{ACCOUNT}\0con".encode(), b"nowhere", row)])

    asyncio.run(main())


def test_nobody_who_answers_is_no_judgement(tmp_path: Path) -> None:
    dead = HandMade.make(tmp_path, hosts=1, devices=1, replicas=1)
    assert run(dead, inspect, "AUTH_acme/con/o").exit_code == 2
    nobody = run(dead, dispersion)
    assert (nobody.exit_code, "no device answers" in nobody.output) == (2, True)
