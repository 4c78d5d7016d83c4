"""The containers that this process has seen within the last moments.

Owns how long what was seen may be believed, counted from the moment at which it was asked, and never that a container is
not there. Whoever acts on what stands here looks again before it says that something is missing.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from proxy.store.names import ContainerName
from proxy.store.values import ContainerInfo


class Seen(NamedTuple):
    """A container, and when it stood so."""

    info: ContainerInfo
    asked_at: float


class ContainerCache:
    """Containers by name, the one unused longest forgotten first."""

    def __init__(self, containers_max: int) -> None:
        """Take how many are kept."""
        self._max: Final = containers_max
        self._seen: OrderedDict[ContainerName, Seen] = OrderedDict()

    def get(self, name: ContainerName, asked_after: float) -> Seen | None:
        """Return what was asked no earlier than that."""
        seen = self._seen.get(name)
        if seen is None or seen.asked_at < asked_after:
            return None
        self._seen.move_to_end(name)
        return seen

    def put(self, info: ContainerInfo, asked_at: float) -> None:
        """Keep what a question that began then was answered; an answer that is older than what stands here is let go."""
        before = self._seen.get(info.name)
        if before is not None and before.info.entry.ballot > info.entry.ballot:
            return
        self._seen[info.name] = Seen(info, asked_at)
        self._seen.move_to_end(info.name)
        if len(self._seen) > self._max:
            self._seen.popitem(last=False)

    def forget(self, name: ContainerName) -> None:
        """It is gone, or nobody knows."""
        self._seen.pop(name, None)
