"""Several offers in one call, and what became of each: how they travel.

Owns that encoding only. Each offer, and each answer, is written down by itself: an offer once for all the owners it goes to.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgpack

from swiftlike.node_calls import Acceptance, unpack_list
from swiftlike.registers import Register, decode_register, encode_register
from swiftlike.rpc.transport import Body, Outcome, Reply, failed
from swiftlike.timestamps import Ballot, Offer

_offer_packer: Final = msgpack.Packer(use_bin_type=True)

OWING, FROM_VOTER = 1, 2
"""Flags of an offer in a list of them."""


def pack_offer(
    path: bytes, entry_raw: bytes, body: Body | None, offer: Offer, *, owing: bool = False
) -> bytes:
    """Write an offer down for a list of them: (path, entry, body or nil, circumstances, flags)."""
    packed: bytes = _offer_packer.pack((path, entry_raw, body, offer.value, OWING if owing else 0))
    return packed


def join_offers(packed: Sequence[bytes]) -> bytes:
    """Make the body of a call out of offers that are written down already."""
    head: bytes = _offer_packer.pack_array_header(len(packed))
    return b"".join((head, *packed))


class OfferFailed(NamedTuple):
    """How one offer of several failed; of an unknown outcome the code is empty."""

    code: str
    reason: str
    epoch: int = 0
    """Of the ring there, where the code is about that; else zero."""


def reply_of(failure: OfferFailed) -> Reply:
    """Return how the offer would have ended as a call of its own."""
    if not failure.code:
        return Reply(Outcome.UNKNOWN, reason=failure.reason)
    return failed(failure.code, failure.reason, {"epoch": failure.epoch} if failure.epoch else {})


_ACCEPTED, _WHOLE, _VOTES = 1, 2, 4


def pack_offered(answer: Acceptance | OfferFailed) -> tuple[Any, ...]:
    """Write down what became of one offer, as a msgpack array."""
    if isinstance(answer, OfferFailed):
        return answer
    accepted, whole, votes, replaced, above = answer
    flags = (_ACCEPTED if accepted else 0) | (_WHOLE if whole else 0) | (_VOTES if votes else 0)
    return (
        flags,
        b"" if replaced is None else encode_register(Register(None, (replaced,))),
        b"" if above is None else above,
    )


def unpack_offered(raw: Body) -> list[Acceptance | OfferFailed]:
    """Read what became of several offers. Raises ValueError when that is not what it is."""
    try:
        return list(map(_offered_of, unpack_list(raw)))
    except (TypeError, IndexError, struct.error) as error:
        raise ValueError(f"what became of an offer is not told as it should be: {error}") from None


def _offered_of(item: Any) -> Acceptance | OfferFailed:
    if type(item) is not tuple or len(item) != 3:
        raise ValueError("what became of an offer is not told in three values")
    flags, replaced, above = item
    if type(flags) is str:
        return OfferFailed(*item)
    return Acceptance(
        bool(flags & _ACCEPTED),
        bool(flags & _WHOLE),
        bool(flags & _VOTES),
        decode_register(replaced).replaced[0] if replaced else None,
        Ballot(above) if above else None,
    )
