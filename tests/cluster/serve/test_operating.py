"""The operator's guide works: its commands, followed beside real processes that have the fault, make the cluster well again."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ring.builder.file import save_builder
from tests.cluster.device.hosts import free_ports
from tests.cluster.serve.clusters import OFTEN, HandMade, HandMadeHost, wait_for
from tests.cluster.serve.test_healing import fill
from tests.cluster.serve.test_page import install

GUIDE = Path(__file__).parents[3] / "docs" / "operating.md"
HEALED_S = 90.0
RINGS = ("object-0", "account", "container")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
pytestmark = pytest.mark.timeout(400)


def commands_of(title: str) -> list[str]:
    """The commands of one section of the guide."""
    (section,) = [part for part in GUIDE.read_text().split("\n## ") if part.startswith(title)]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [
        line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]


class Operator:
    """Someone at a command line in the directory of the builders, who says host.toml for the file of one host."""

    def __init__(self, cluster: HandMade, host: HandMadeHost, names: dict[str, str]) -> None:
        self._rings = cluster.root / "rings"
        programs = cluster.root / "bin"
        programs.mkdir()
        install(programs)
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path}
        self._names = {
            "/etc/swiftlike/cluster.toml": str(cluster.root / "cluster.toml"),
            "host.toml": str(host.config),
            **names,
        }
        self._uuid = ""
        for name, builder in cluster.builders.items():
            save_builder(self._rings / f"{name}.builder", builder)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one command of the guide, with the names that things have here."""
        for name, here in self._names.items():
            command = command.replace(name, here)
        if self._uuid:
            command = UUID.sub(self._uuid, command)
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=self._rings,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done
        return done

    def does(self, command: str) -> None:
        """Run a command that must succeed: for each ring, if it is about one; note the uuid that it tells."""
        rings = RINGS if "object-0" in command else ("",)
        for ring in rings:
            done = self.run(command.replace("object-0", ring) if ring else command)
            assert done.returncode == 0, done
            if " is device " in done.stdout:
                found = UUID.search(done.stdout)
                assert found is not None
                self._uuid = found[0]

    def waits(self, command: str, what: str) -> None:
        """Run a command until it ends with 0."""
        wait_for(lambda: self.run(command).returncode == 0, what, HEALED_S)

    def is_well(self) -> bool:
        return self.run("swiftlike-recon --config host.toml").returncode == 0


def empty(directory: Path) -> None:
    """An emptied disk."""
    for part in directory.iterdir():
        shutil.rmtree(part) if part.is_dir() else part.unlink()


def lose_index(directory: Path) -> None:
    """A device whose index is gone."""
    shutil.rmtree(directory / "index")
    (directory / "index").mkdir()


@pytest.mark.parametrize(
    ("title", "fault"),
    [
        pytest.param("A disk was emptied or replaced", empty, id="emptied"),
        pytest.param("Restoring an index", lose_index, id="index lost"),
    ],
)
def test_a_disk_that_lost_something_is_whole_again_by_the_guide(
    tmp_path: Path, title: str, fault: Callable[[Path], None]
) -> None:
    cluster = HandMade.make(tmp_path, hosts=3, devices=1, jobs=OFTEN)
    third = cluster.hosts[2]
    ((name, port),) = third.device_ports.items()
    directory = third.root / "devices" / name
    operator = Operator(
        cluster,
        third,
        {"/srv/d1": str(directory), "10.0.0.5:6201": f"{third.address}:{port}", "votes d1": f"votes {name}"},
    )
    with cluster.running():
        fill(cluster.hosts[0], 0, 15)
        cluster.storages[third.address].__exit__(None, None, None)
        fault(directory)
        assert not operator.is_well()
        for command in commands_of(title):
            if " check " in command:
                assert operator.run(command).returncode == 2, "there is nothing left to check"
            elif " votes " not in command:
                operator.does(command)
        cluster.start_storage(third)
        cluster.wait_serving(third)
        operator.waits(f"swiftlike-device votes {name} --config host.toml", "it votes on all that it owns")
        wait_for(operator.is_well, "recon says that all is well", HEALED_S)
        dispersion = operator.run("swiftlike-dispersion --config host.toml")
        assert dispersion.returncode == 0, dispersion


def test_a_cluster_grows_by_a_disk_by_the_guide(tmp_path: Path) -> None:
    cluster = HandMade.make(tmp_path, hosts=3, devices=1, jobs=OFTEN)
    third = cluster.hosts[2]
    directory = third.root / "devices" / "h3d2"
    directory.mkdir()
    with cluster.running():
        fill(cluster.hosts[0], 0, 15)
        *_, port = free_ports(16)  # behind those that the cluster has on its other addresses
        operator = Operator(
            cluster,
            third,
            {"/srv/d3": str(directory), "r1z2-10.0.0.5:6203/d3": f"r1z3-{third.address}:{port}/h3d2"},
        )
        first, *rest = commands_of("Growing by one disk")
        operator.does(first)
        third.device_ports["h3d2"] = port
        third.write()
        storage = cluster.storages[third.address]
        os.kill(storage.pid, signal.SIGHUP)
        cluster.wait_serving(third)
        for command in rest:
            if command.startswith("swiftlike-recon"):
                assert operator.run(command).returncode in (0, 1)
                operator.waits(command, "all has come")
            else:
                operator.does(command)
        assert "nothing is moving" in operator.run("swiftlike-recon --config host.toml ring object-0").stdout
        wait_for(operator.is_well, "recon says that all is well", HEALED_S)


def test_a_host_with_another_secret_or_seed_is_told_what_is_wrong(tmp_path: Path) -> None:
    cluster = HandMade.make(tmp_path, hosts=3, devices=1, jobs=OFTEN)
    operator = Operator(cluster, cluster.hosts[0], {})
    with cluster.running():
        (cluster.root / "secret").write_text("another secret than the cluster's")
        done = operator.run("swiftlike-recon --config host.toml")
        assert done.returncode == 2
        assert "secret" in done.stdout, done
        (cluster.root / "secret").write_text("the secret of a cluster made by hand")
        settings = (cluster.root / "cluster.toml").read_text()
        (cluster.root / "cluster.toml").write_text(settings.replace("c0ffee00", "c0ffee01"))
        assert "hash_seed" in operator.run("swiftlike-recon --config host.toml").stdout
        (cluster.root / "cluster.toml").write_text(settings)
        (cluster.root / "secret").chmod(0o644)
        readable = operator.run("swiftlike-recon --config host.toml")
        assert (readable.returncode, "chmod" in readable.stderr) == (2, True)
        (cluster.root / "secret").chmod(0o600)
        wait_for(operator.is_well, "recon says that all is well", HEALED_S)
