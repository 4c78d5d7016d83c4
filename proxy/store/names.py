"""Names: what an account, a container and an object are called, and the register that each of them is.

Owns the step from names to keys. Names are trusted here: `swiftlike.names.check_name` guards the door.
"""

from typing import NamedTuple

from proxy.cluster.placement import Key
from swiftlike.names import path_of
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, objects
from swiftlike.timestamps import Timestamp


class ContainerName(NamedTuple):
    """A container of an account."""

    account: bytes
    container: bytes

    @property
    def path(self) -> bytes:
        """The path that identifies it."""
        return path_of(self.account, self.container)

    @property
    def key(self) -> Key:
        """Its register, which owes a row to the account's listing."""
        return Key(CONTAINERS, self.path, owes=True)


class ObjectName(NamedTuple):
    """An object of a container."""

    account: bytes
    container: bytes
    name: bytes

    @property
    def path(self) -> bytes:
        """The path that identifies it."""
        return path_of(self.account, self.container, self.name)

    @property
    def parent(self) -> ContainerName:
        """The container that lists it."""
        return ContainerName(self.account, self.container)

    def key(self, policy: int, incarnation: Timestamp) -> Key:
        """Its register under an incarnation of its container, to whose listing it owes a row."""
        return Key(objects(policy), path_of(*self), incarnation, owes=True)


def account_key(account: bytes) -> Key:
    """Return the register of an account, which is listed nowhere."""
    return Key(ACCOUNTS, account)
