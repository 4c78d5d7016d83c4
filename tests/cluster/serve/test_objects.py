"""Objects through whole clusters of real processes: in and out, over restarts, and while processes are killed."""

import http.client
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.serve.clusters import (
    ACCOUNT,
    KEY,
    USER,
    HandMade,
    HandMadeHost,
    Serve,
    Span,
    wait_for,
)
from tests.cluster.serve.swift_client import Swift
from tests.cluster.serve.workload import Lane, at_work, check_all

BOX = "box"


def connector(address: tuple[str, int], user: str, key: str) -> Callable[[], Swift]:
    """Return what opens a connection to one proxy, signed in once."""
    signed = Swift(address, user, key)
    signed.close()

    def connect() -> Swift:
        fresh = object.__new__(Swift)
        fresh.__dict__.update(signed.__dict__)
        return fresh

    return connect


def failures(counts: Counter[str]) -> dict[str, int]:
    """Requests that ended otherwise than they should on a sound cluster."""
    sound = {"PUT 201", "GET 200", "GET 204", "GET 404", "DELETE 204", "DELETE 404"}
    return {ended: count for ended, count in counts.items() if ended not in sound}


def overlap(one: Span, other: Span) -> bool:
    """Say whether two things were at work at the same time."""
    return one.began_s <= other.ended_s and other.began_s <= one.ended_s


def wait_answered(count: Callable[[], Counter[str]], more: int) -> None:
    """Wait until that many more requests have been answered well."""

    def answered() -> int:
        counts = count()
        return counts.total() - sum(failures(counts).values())

    goal = answered() + more
    wait_for(lambda: answered() >= goal, f"{more} more requests are answered", 60)


def test_an_object_goes_in_and_comes_out_and_is_there_after_a_restart(tmp_path: Path) -> None:
    body = os.urandom(50_000)
    with Serve(tmp_path / "data") as serve, Swift.of(serve.ready) as swift:
        assert swift.request("PUT", BOX).status == 201
        assert swift.put(BOX, "a/b c", body).status == 201
        assert swift.names(BOX) == ["a/b c"]
        assert serve.interrupt() == 0
    with Serve(tmp_path / "data") as serve, Swift.of(serve.ready) as swift:
        answer = swift.request("GET", BOX, "a/b c")
        assert (answer.status, answer.body) == (200, body)
        assert swift.names(BOX) == ["a/b c"]
        listed = swift.request("GET", query="format=json")
        assert [(one["name"], one["count"], one["bytes"]) for one in json.loads(listed.body)] == [
            (BOX, 1, len(body))
        ]
        assert swift.request("DELETE", BOX, "a/b c").status == 204
        assert swift.request("DELETE", BOX).status == 204
        assert swift.request("GET", BOX).status == 404


def test_what_was_acknowledged_is_there_after_everything_was_killed_at_once(tmp_path: Path) -> None:
    with Serve(tmp_path / "data", "--log-level", "info") as serve:
        connect = connector(serve.address, serve.ready["swift"]["user"], serve.ready["swift"]["key"])
        with connect() as swift:
            assert swift.request("PUT", BOX).status == 201
        lanes = [Lane(number, [connect], BOX) for number in range(6)]
        with at_work(lanes) as count:
            wait_answered(count, 150)
            os.killpg(serve.group, signal.SIGKILL)
    with Serve(tmp_path / "data") as serve, Swift.of(serve.ready) as swift:
        check_all(lanes, swift, BOX)


def test_of_who_fills_and_who_deletes_a_container_at_once_one_has_his_way_and_of_its_creators_one_is_the_first(
    tmp_path: Path,
) -> None:
    with Serve(tmp_path / "data", "--workers", "2") as serve, ThreadPoolExecutor(8) as pool:
        connect = connector(serve.address, serve.ready["swift"]["user"], serve.ready["swift"]["key"])
        clients = [connect() for _ in range(8)]

        def at_once(*asked: tuple[str, ...]) -> list[int]:
            together = threading.Barrier(len(asked))

            def ask(swift: Swift, method: str, *names: str) -> int:
                together.wait(20)
                return swift.request(method, *names).status

            asking = [pool.submit(ask, swift, *each) for swift, each in zip(clients, asked, strict=False)]
            return [one.result() for one in asking]

        for number in range(20):
            box = f"box {number}"
            created = at_once(*[("PUT", box)] * 8)
            assert sorted(created) == [201] + [202] * 7
            put, deleted = at_once(("PUT", box, "o"), ("DELETE", box))
            if put == 201:
                assert deleted == 409
                assert clients[7].names(box) == ["o"]
                assert clients[6].request("GET", box, "o").status == 200
            else:
                assert (put, deleted) == (404, 204)
                assert clients[7].request("PUT", box).status == 201
                assert clients[6].names(box) == []
                assert clients[5].request("GET", box, "o").status == 404
        for swift in clients:
            swift.close()


def test_a_device_that_is_killed_costs_no_request(tmp_path: Path) -> None:
    with Serve(tmp_path / "data", "--log-level", "info") as serve:
        connect = connector(serve.address, serve.ready["swift"]["user"], serve.ready["swift"]["key"])
        with connect() as swift:
            assert swift.request("PUT", BOX).status == 201
        lanes = [Lane(number, [connect], BOX) for number in range(6)]
        with at_work(lanes) as count:
            for name in ("d1", "d2", "d3", "d1"):
                wait_answered(count, 60)
                # One at a time: the next only when this one serves again.
                serve.kill_and_wait(f"device {name}", serve.device(name))
            wait_answered(count, 60)
            assert failures(count()) == {}
        with connect() as swift:
            check_all(lanes, swift, BOX)


def test_a_device_that_is_killed_costs_no_listing_and_no_name_of_a_long_one(tmp_path: Path) -> None:
    with Serve(tmp_path / "data", "--log-level", "info") as serve:
        connect = connector(serve.address, serve.ready["swift"]["user"], serve.ready["swift"]["key"])
        # More than one answer of a device holds.
        long = [f"{number:04}-".ljust(1_000, "x") for number in range(1_200)]
        with connect() as swift:
            assert swift.request("PUT", BOX).status == 201

        def put(some: list[str]) -> set[int]:
            with connect() as swift:
                return {swift.put(BOX, name, b"x").status for name in some}

        ended, pages, wrong = threading.Event(), Counter[str](), list[object]()

        def list_all(form: str) -> None:
            with connect() as swift:
                while not ended.is_set():
                    answer = swift.request("GET", BOX, query=f"format={form}")
                    body = answer.body.decode()
                    found = body.split() if form == "plain" else [one["name"] for one in json.loads(body)]
                    if (answer.status, found) != (200, long):
                        wrong.append((answer.status, len(found)))
                        return
                    pages[form] += 1

        def has_listed(count: int) -> bool:
            return bool(wrong) or pages.total() >= count

        with ThreadPoolExecutor(8) as pool:
            assert set().union(*pool.map(put, (long[at::8] for at in range(8)))) == {201}
            lists = [pool.submit(list_all, form) for form in ("plain", "json", "plain", "json")]
            try:
                for name in ("d1", "d2", "d3"):
                    wait_for(partial(has_listed, pages.total() + 8), "some more are listed")
                    serve.kill_and_wait(f"device {name}", serve.device(name))
            finally:
                ended.set()
            for one in lists:
                one.result()
        assert not wrong
        assert min(pages["plain"], pages["json"]) > 0


def test_a_worker_that_is_killed_costs_only_the_requests_in_its_hands(tmp_path: Path) -> None:
    dying: list[Span] = []
    with Serve(tmp_path / "data", "--log-level", "info") as serve:
        connect = connector(serve.address, serve.ready["swift"]["user"], serve.ready["swift"]["key"])
        with connect() as swift:
            assert swift.request("PUT", BOX).status == 201
        lanes = [Lane(number, [connect], BOX) for number in range(6)]
        with at_work(lanes) as count:
            for number in (1, 2, 1, 2):
                wait_answered(count, 60)
                dying.append(serve.kill_and_wait(f"worker {number}", serve.worker(number)))
            wait_answered(count, 60)
            ended = failures(count())
        assert all(how.endswith(" lost") for how in ended), ended
        # What a worker has in its hands are the connections that the kernel gave to its socket: until it is gone that also
        # gets new ones, which it never takes. The kernel closes those that it took first, so a lane may come by once more.
        for lane in lanes:
            deaths = [[death for death in dying if overlap(request, death)] for request in lane.lost]
            assert all(len(found) == 1 for found in deaths), (lane.lost, dying)
            assert all(deaths.count([death]) <= 2 for death in dying), (lane.lost, dying)
        with connect() as swift:
            check_all(lanes, swift, BOX)


def test_ctrl_c_lets_a_request_at_work_finish(tmp_path: Path) -> None:
    with Serve(tmp_path / "data") as serve, Swift.of(serve.ready) as swift:
        assert swift.request("PUT", BOX).status == 201
        connection = http.client.HTTPConnection(*serve.address, timeout=20)
        connection.putrequest("PUT", f"{swift.path}/{BOX}/slow")
        connection.putheader("X-Auth-Token", swift.token)
        connection.putheader("Content-Length", "6")
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        # The worker has begun with it once it asks for the body.
        assert connection.sock.recv(1024).startswith(b"HTTP/1.1 100")
        ended = threading.Thread(target=serve.interrupt)
        ended.start()
        wait_for(lambda: not can_connect(serve.address), "nobody is taken any more")
        connection.send(b"finish")
        answer = connection.getresponse()
        assert answer.status == 201
        connection.close()
        ended.join(40)
        assert serve.process.returncode == 0
    with Serve(tmp_path / "data") as serve, Swift.of(serve.ready) as swift:
        assert swift.request("GET", BOX, "slow").body == b"finish"


def can_connect(address: tuple[str, int]) -> bool:
    """Say whether a proxy accepts connections."""
    try:
        socket.create_connection(address, 5).close()
    except OSError:
        return False
    return True


@pytest.fixture
def hosts(tmp_path: Path) -> HandMade:
    """Three hosts with two devices and a proxy each."""
    return HandMade.make(tmp_path)


def proxies(cluster: HandMade) -> list[Callable[[], Swift]]:
    return [connector((host.address, host.proxy_port), f"{ACCOUNT}:{USER}", KEY) for host in cluster.hosts]


def test_what_one_proxy_wrote_the_others_read_and_list_whatever_their_clocks_say(hosts: HandMade) -> None:
    for host, offset_s in zip(hosts.hosts, (-40.0, 0.0, 40.0), strict=True):
        host.proxy["clock_offset_s"] = offset_s
        host.write()
    with hosts.running():
        connects = proxies(hosts)
        one, two, three = (connect() for connect in connects)
        assert two.request("PUT", BOX).status == 201
        for number in range(30):
            writer, reader, lister = ((one, two, three), (three, one, two), (two, three, one))[number % 3]
            body = f"{number}".encode()
            assert writer.put(BOX, "o", body).status == 201
            assert reader.request("GET", BOX, "o").body == body
            assert writer.request("DELETE", BOX, "o").status == 204
            assert reader.request("GET", BOX, "o").status == 404
            assert lister.names(BOX) == []
            assert reader.put(BOX, "o", b"again").status == 201
            assert lister.names(BOX) == ["o"]
        for swift in (one, two, three):
            swift.close()
        lanes = [Lane(number, connects, BOX) for number in range(6)]
        with at_work(lanes) as count:
            wait_answered(count, 200)
            assert failures(count()) == {}
        with connects[0]() as swift:
            assert swift.request("DELETE", BOX, "o").status == 204
            check_all(lanes, swift, BOX)


def test_a_host_that_is_gone_costs_no_request_at_the_proxies_of_the_others(hosts: HandMade) -> None:
    with hosts.running():
        connects = proxies(hosts)
        with connects[0]() as swift:
            assert swift.request("PUT", BOX).status == 201
        lanes = [Lane(number, connects[:2], BOX) for number in range(6)]
        gone = hosts.hosts[2]
        with at_work(lanes) as count:
            wait_answered(count, 60)
            for program in (hosts.proxies[gone.address], hosts.storages[gone.address]):
                os.killpg(program.group, signal.SIGKILL)
                program.process.wait(10)
            wait_answered(count, 200)
            hosts.start_storage(gone)
            hosts.start_proxy(gone)
            wait_answered(count, 60)
            assert failures(count()) == {}
        with connects[1]() as swift:
            check_all(lanes, swift, BOX)


def body_bytes(host: HandMadeHost) -> int:
    """Return how many bytes of bodies are on a host's disks, those under way too."""
    found = [
        path
        for what in ("volumes/*.vol", "files/*/*", "staging/*")
        for path in host.root.glob(f"devices/*/{what}")
    ]
    return sum(path.stat().st_size for path in found)


def test_a_full_host_takes_no_bodies_and_the_cluster_goes_on(hosts: HandMade) -> None:
    full = hosts.hosts[0]
    full.storage["reserve_bytes"] = 2**50
    full.write()
    with hosts.running():
        connects = proxies(hosts)
        with connects[0]() as swift:
            assert swift.request("PUT", BOX).status == 201
        lanes = [Lane(number, connects, BOX) for number in range(6)]
        with at_work(lanes) as count:
            wait_answered(count, 200)
            assert failures(count()) == {}
        with connects[0]() as swift:
            check_all(lanes, swift, BOX)
            large = os.urandom(3_000_000)
            assert swift.put(BOX, "large", large).status == 201
            assert swift.request("GET", BOX, "large").body == large
        # What it has of users, who are objects without a body.
        assert body_bytes(full) < 4_096
        assert all(body_bytes(host) > len(large) for host in hosts.hosts[1:])


def test_a_cluster_with_most_hosts_full_says_so_and_still_deletes(hosts: HandMade) -> None:
    with hosts.running():
        connects = proxies(hosts)
        with connects[0]() as swift:
            assert swift.request("PUT", BOX).status == 201
            assert swift.put(BOX, "o", b"x" * 5000).status == 201
    for host in hosts.hosts[:2]:
        host.storage["reserve_bytes"] = 2**50
        host.write()
    with hosts.running(), connects[0]() as swift:
        assert swift.put(BOX, "p", b"x" * 5000).status in (503, 507)
        assert swift.request("GET", BOX, "o").body == b"x" * 5000
        assert swift.request("DELETE", BOX, "o").status == 204
        assert swift.names(BOX) == []
