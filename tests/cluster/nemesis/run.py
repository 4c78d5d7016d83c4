"""One run: a cluster of real processes under a plan's troubles and recording clients; then repair, and judgement.

Owns the life of a run and what is asked of it in the end. Nothing may be wrong: every history must be linearizable, every page
right, every acknowledged write there through both APIs and both proxies, every owner of a partition must hold the same,
whole, voting and owing nothing, and no device may have damage that it does not know of.

    python -m tests.cluster.nemesis.run --seed 7 --seconds 20 --directory DIR
"""

import argparse
import http.client
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from storage_node.checking import ClosedDevice, check
from swiftlike.node_calls import DueKind
from swiftlike.node_client import NodeClient, NodeFailed
from tests.cluster.nemesis.places import Places, make_small, places
from tests.cluster.nemesis.plans import DEVICES, HOSTS, PROXIES, Plan, draw
from tests.cluster.nemesis.recording import CONTAINER, Dialect, Record, Recorder, User, wrong_pages
from tests.cluster.nemesis.troubles import RESERVE_BYTES, Tormentor
from tests.cluster.serve.clusters import (
    ACCESS_KEY,
    ACCOUNT,
    KEY,
    READY_S,
    SECRET_KEY,
    USER,
    HandMade,
    wait_for,
)
from tests.cluster.serve.looking import Holding, ask_all, differing, holding
from tests.cluster.serve.swift_client import Swift
from tests.simulation.linearizability import is_linearizable

CLIENTS: Final = 5
HEALED_S: Final = 180.0
"""For all copies to be the same again: many passes of a replicator, three walks of a mender."""


class Run:
    """One run; `wrong` has what may not be, in sentences."""

    def __init__(self, plan: Plan, root: Path) -> None:
        """Take the plan and an empty directory, for all files and logs."""
        self.plan: Final = plan
        self.record: Final = Record()
        self.wrong: list[str] = []
        self._root: Final = root
        self._began_s = time.monotonic()

    def go(self) -> None:
        """Live through it."""
        with places(HOSTS) as where:
            cluster = self._make(where)
            with self._running(cluster):
                user = self._sign_in(cluster)
                dialects = (Dialect(False, user), Dialect(True, user))
                proxies = [(host.address, host.proxy_port) for host in cluster.hosts[:PROXIES]]
                self._live(cluster, where, dialects, proxies)
                self._heal(cluster)
                self._read_in_the_end(dialects, proxies)
            self._check_disks(cluster)
        self._judge()

    def tell(self, sentence: str) -> None:
        """Say what happens, and when."""
        print(f"{time.monotonic() - self._began_s:7.2f} s  {sentence}", flush=True)

    # --- a cluster ----------------------------------------------------------------------------------------------

    def _make(self, where: Places) -> HandMade:
        cluster = HandMade.make(
            self._root, HOSTS, DEVICES, address_of=lambda number: where.address(number - 1)
        )
        jobs = {"audit_every_s": 1.0, "audited_bodies_per_s": 2_000.0, "compared_every_s": 5.0}
        for number, host in enumerate(cluster.hosts):
            host.prefix = where.prefix(number)
            host.storage |= {"reserve_bytes": RESERVE_BYTES, "jobs": jobs}
            host.proxy |= {"request_s": 5.0, "clock_offset_s": (*self.plan.skews_s, 0.0)[number]}
            host.write()
        if where.can_cut:  # then we may mount disks as well
            for host_number, device in sorted(self.plan.small_disks):
                host = cluster.hosts[host_number]
                make_small(host.root / "devices" / list(host.device_ports)[device])
        self.tell(f"made, {'each host in a network of its own' if where.can_cut else 'on loopback'}")
        return cluster

    @contextmanager
    def _running(self, cluster: HandMade) -> Iterator[None]:
        """Run all programs; told to end together, and seen to have ended."""
        try:
            for host in cluster.hosts:
                cluster.start_storage(host)
            for host in cluster.hosts[:PROXIES]:
                cluster.start_proxy(host)
            self._wait_answering(cluster)
            yield
        finally:
            programs = [*cluster.proxies.values(), *cluster.storages.values()]
            for program in programs:
                if program.process.poll() is None:
                    program.process.terminate()
            for program in programs:
                program.__exit__(None, None, None)
            self.tell("stopped")

    def _wait_answering(self, cluster: HandMade) -> None:
        """Wait until every device and every proxy answers."""
        for host in cluster.hosts[:PROXIES]:
            serves = partial(_signs_in, host.address, host.proxy_port)
            wait_for(serves, f"the proxy of {host.address} serves", READY_S)

        async def healthy(client: NodeClient) -> bool:
            return bool(await client.health())

        def all_answer() -> bool:
            with suppress(NodeFailed):
                return all(ask_all(cluster, healthy).values())
            return False

        wait_for(all_answer, "all devices answer", READY_S)
        self.tell("all serve")

    def _sign_in(self, cluster: HandMade) -> User:
        first = cluster.hosts[0]
        with Swift((first.address, first.proxy_port), f"{ACCOUNT}:{USER}", KEY) as swift:
            answer = swift.request("PUT", CONTAINER)
            assert answer.status == 201, answer
            return User(swift.token, swift.path, ACCESS_KEY, SECRET_KEY)

    # --- clients and troubles -----------------------------------------------------------------------------------

    def _live(
        self,
        cluster: HandMade,
        where: Places,
        dialects: Sequence[Dialect],
        proxies: Sequence[tuple[str, int]],
    ) -> None:
        """Let clients and troubles have their time."""
        ended = threading.Event()
        clients = [
            threading.Thread(target=Recorder(number, self.record, dialects, proxies).work, args=(ended,))
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        tormentor = Tormentor(cluster, where, self.plan, self.tell)
        troubles = tormentor.torment()
        try:
            time.sleep(self.plan.seconds)
        finally:
            for thread in troubles:
                thread.join()
            ended.set()
            for thread in clients:
                thread.join()
        self.wrong.extend(tormentor.failures)
        self.tell(f"troubles have ended; {dict(sorted(self.record.ended.items()))}")
        tormentor.restore()
        self._wait_answering(cluster)

    # --- repair -------------------------------------------------------------------------------------------------

    def _heal(self, cluster: HandMade) -> None:
        """Wait until no device has anything left to do."""
        since_us = time.time_ns() // 1000
        until = time.monotonic() + HEALED_S
        told = ""
        while left := self._left(cluster, since_us):
            if time.monotonic() > until:
                self.wrong.append(f"not whole after {HEALED_S:g} s without troubles: {'; '.join(left)}")
                return
            if left[0] != told:
                told = left[0]
                self.tell(f"{len(left)} things left to repair, such as: {told}")
            time.sleep(0.2)
        self.tell("all is whole")

    def _left(self, cluster: HandMade, since_us: int) -> list[str]:
        """Return what is still to be repaired, in sentences."""
        harmed = cluster.hosts[self.plan.victim].address

        async def look(client: NodeClient) -> tuple[list[str], Holding]:
            todo = [f"the body of {path!r} is missing" for _, path, *_ in await client.missing()]
            todo += [f"{item.path!r} owes its row" for item in await client.due(DueKind.DEBT, 2**62)]
            auditor = (await client.stats())["jobs"]["auditor"]
            is_audited = auditor["last_pass_us"] - auditor["last_pass_s"] * 1e6 >= since_us
            # What rots is found by an audit at the latest; nothing of the others can have rotted.
            if not is_audited and str(client.peer).startswith(f"{harmed}:"):
                todo.append("not audited yet")
            return todo, await holding(cluster, client)

        try:
            found = ask_all(cluster, look)
        except NodeFailed as failure:
            return [str(failure)]
        left = [f"{name}: {sentence}" for name, (todo, _) in found.items() for sentence in todo]
        return left + differing(cluster, {name: held for name, (_, held) in found.items()})

    # --- judgement ----------------------------------------------------------------------------------------------

    def _read_in_the_end(self, dialects: Sequence[Dialect], proxies: Sequence[tuple[str, int]]) -> None:
        """Read everything through both APIs and all proxies, and list it; these belong to the histories."""
        last = Recorder(-1, self.record, dialects, proxies)
        for dialect in dialects:
            for address in proxies:
                for name in sorted(self.record.histories):
                    if not last.read(dialect, address, name):
                        self.wrong.append(f"{name!r} cannot be read in the end at {address}")
                found = last.list(dialect, address, limit=1000)
                if found is None:
                    self.wrong.append(f"the container cannot be listed in the end at {address}")
                    continue
                there = {name for name in self.record.histories if self.record.heard(name) is not None}
                if found.shown.keys() != there:
                    differing = sorted(found.shown.keys() ^ there)
                    self.wrong.append(f"listed and not there in the end, or the other way round: {differing}")

    def _check_disks(self, cluster: HandMade) -> None:
        """Read every device from end to end, now that no process has it open."""
        for host in cluster.hosts:
            for name in host.device_ports:
                with closing(ClosedDevice(host.root / "devices" / name)) as closed:
                    report = check(closed)
                self.wrong += [f"{name}: {damage}" for damage in report.damage]

    def _judge(self) -> None:
        histories = self.record.histories
        self.wrong += self.record.wrong
        self.wrong += wrong_pages(self.record.pages, histories)
        for name, history in sorted(histories.items()):
            if not is_linearizable(history):
                calls = "\n".join(f"    {call}" for call in sorted(history, key=lambda call: call.began))
                self.wrong.append(f"the history of {name!r} is not linearizable:\n{calls}")
        self.tell(f"judged {len(histories)} names and {len(self.record.pages)} pages")


def _signs_in(address: str, port: int) -> bool:
    with (
        suppress(OSError, http.client.HTTPException, AssertionError),
        Swift((address, port), f"{ACCOUNT}:{USER}", KEY),
    ):
        return True
    return False


def main() -> int:
    """Live through one run; say what was wrong, and exit with 1 when anything was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    plan = draw(options.seed, options.seconds)
    print(plan, flush=True)
    run = Run(plan, options.directory)
    run.go()
    for sentence in run.wrong:
        print(f"WRONG: {sentence}", flush=True)
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
