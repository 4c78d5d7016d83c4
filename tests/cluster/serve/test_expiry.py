"""An object that is given two seconds to live, through a whole cluster of real processes."""

import asyncio
import json
from pathlib import Path

from swiftlike.config import load_cluster, load_host
from swiftlike.node_calls import DueKind
from swiftlike.node_client import NodeClient
from swiftlike.rpc.client import Client
from swiftlike.rpc.transport import UnixAddress
from swiftlike.tls import calling_network
from tests.cluster.serve.clusters import Serve, wait_for
from tests.cluster.serve.swift_client import Swift

BOX = "box"
LATER_US = 2**62
DEVICES = ("d1", "d2", "d3")


def due_on_devices(data: Path) -> dict[str, int]:
    """Ask each device how many of its objects are ever to be deleted."""

    async def ask() -> dict[str, int]:
        host = load_host(data / "host.toml")
        cluster = load_cluster(host.cluster_file)
        async with Client(calling_network(host.tls), cluster.rpc_secret) as transport:
            found = {}
            for name in DEVICES:
                socket = UnixAddress(str(host.socket_directory / f"{name}.sock"))
                node = NodeClient(transport, socket, lambda table: 1)
                found[name] = len(await node.due(DueKind.DELETE, LATER_US))
            return found

    return asyncio.run(ask())


def test_an_object_is_gone_soon_after_its_time_and_so_are_its_rows_and_due_times(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Serve(data) as serve, Swift.of(serve.ready) as swift:
        assert swift.request("PUT", BOX).status == 201
        for name in ("short", "changed", "dropped"):
            answer = swift.request("PUT", BOX, name, body=b"body", X_Delete_After="2")
            assert answer.status == 201
        assert swift.put(BOX, "stays", b"body").status == 201
        assert swift.request("POST", BOX, "changed", X_Delete_After="600").status == 202
        assert swift.request("POST", BOX, "dropped").status == 202
        wait_for(lambda: due_on_devices(data) == dict.fromkeys(DEVICES, 1), "only the one put off is due", 60)
        assert swift.request("GET", BOX, "short").status == 404
        assert swift.names(BOX) == ["changed", "dropped", "stays"]

        def usage() -> list[tuple[str, int]]:
            return [
                (one["name"], one["count"])
                for one in json.loads(swift.request("GET", query="format=json").body)
            ]

        wait_for(lambda: usage() == [(BOX, 3)], "the account counts what is left")
        assert swift.request("GET", BOX, "changed").headers["x-delete-at"]
        assert swift.request("DELETE", BOX, "changed").status == 204
        wait_for(lambda: due_on_devices(data) == dict.fromkeys(DEVICES, 0), "nothing is due")
        for name in ("dropped", "stays"):
            assert swift.request("DELETE", BOX, name).status == 204
        assert swift.request("DELETE", BOX).status == 204
