"""The rings of a proxy: one for each table of the cluster, read from the ring directory and followed.

Owns the step from a table to its ring's file. Never fetches a ring from another host.
"""

from pathlib import Path

from ring.files import RingFiles
from ring.ring import Ring
from swiftlike.config import Cluster
from swiftlike.node_calls import ring_name, tables


class FollowedRings:
    """The rings of all tables, for `Registers`. `run` follows their files; without it, they stay as they were read."""

    def __init__(self, directory: Path, cluster: Cluster) -> None:
        """Read the rings of a cluster's tables. Raises RingFileError when one is missing, no ring, or of other replicas."""
        names = {ring_name(table): table for table in tables(policy.index for policy in cluster.policies)}
        self._files = RingFiles.load(directory, names, cluster.hash_seed, replicas=cluster.ring_replicas)
        self._watchers = {table: self._files.watcher(name) for name, table in names.items()}

    def ring(self, table: bytes) -> Ring:
        """Return the ring that places a table. Raises KeyError for a table that the cluster did not have at the start."""
        return self._watchers[table].ring

    def look_for_newer(self, table: bytes) -> None:
        """Look at the file of a table's ring at once."""
        self._files.look(ring_name(table))

    def look(self) -> None:
        """Look at all files at once."""
        self._files.look_at_all()

    def epochs(self) -> dict[str, int]:
        """Return the epochs by the names of the rings."""
        return {name: self._files.ring(name).epoch for name in self._files.names}

    async def run(self) -> None:
        """Follow the files until cancelled."""
        await self._files.run()
