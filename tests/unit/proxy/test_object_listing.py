"""What becomes of a row that is refused, when nobody can say how its container stands."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from proxy.cluster.placement import Key
from proxy.cluster.register import Registers
from proxy.store.containers import Containers
from proxy.store.errors import OutcomeUnknown, StoreError, Unavailable
from proxy.store.names import ContainerName, ObjectName
from proxy.store.object_listing import ListedEnd, ObjectListing
from proxy.store.rows import Rows, Upserted
from swiftlike.entries import Entry
from swiftlike.timestamps import Ballot, WriteId

NAME = ObjectName(b"acc", b"con", b"o")
ENTRY = Entry(Ballot.of(2, 1), WriteId(bytes(16)), 2)


class Refusing:
    """Rows that are refused, and a container that cannot be read or settled."""

    def __init__(self, refusal: Upserted, fault: StoreError) -> None:
        self.refusal = refusal
        self.fault = fault
        self.read: Callable[..., Awaitable[Any]] = self._fail
        self.settle: Callable[..., Awaitable[Any]] = self._fail

    async def upsert(self, *_: Any, **__: Any) -> Upserted:
        return self.refusal

    async def _fail(self, *_: Any, **__: Any) -> Any:
        raise self.fault


@pytest.mark.parametrize("fault", [Unavailable("too few owners"), OutcomeUnknown("who knows")])
@pytest.mark.parametrize("refusal", [Upserted.CLOSING, Upserted.GONE])
async def test_a_write_whose_row_is_refused_is_never_said_to_be_undone(
    refusal: Upserted, fault: StoreError
) -> None:
    refusing = Refusing(refusal, fault)
    listing = ObjectListing(cast(Registers, None), cast(Containers, refusing), cast(Rows, refusing))
    key = Key(b"o\0", NAME.path)
    end = await listing.list(key, ContainerName(b"acc", b"con"), ENTRY, ENTRY.write_id, deadline=1.0)
    assert end is ListedEnd.UNKNOWN
