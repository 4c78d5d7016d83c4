"""Upload states: what the record of an upload says of its end, and which steps lead from one state to another. Pure.

    open ──claim──> completing ──finish──> completed      the object is written between these two
      ^                  │
      └─release, reopen──┘
    open ──abort──> aborted

Whoever would make an upload its object claims it first, and names what it asks for by a fingerprint; so an upload that is
being completed is neither given up nor completed with other parts. Several may hold a claim that ask for the same: a client
repeats what was not answered. A claim ends with `finish`, which ends all, or with `release`, by one who knows that it wrote
nothing; the upload is open again when the last is released. Whoever would replace the object takes the step of `finish` before
that, so that an upload that is still being completed has an object that stands, or none yet. The claim of one who died stays, until nobody can be at work
under it: then `reopen` or `finish`, by what the object says (see `ending`).

A step is a function of what the record says; it returns what it says then, or None where the step does not lead from there.
The type of an upload's record is what listings go by: it tells those that are not over.
"""

from collections.abc import Callable
from typing import Final

from proxy.store import manifests
from proxy.store.values import Attributes

STATE: Final = "sys:upload-state"
OPEN, COMPLETING, COMPLETED, ABORTED = "open", "completing", "completed", "aborted"
CLAIMS_MAX: Final = 8
"""Claims on one upload at once: requests that are repeated while the first still goes on."""

_FINGERPRINT: Final = "sys:upload-fingerprint"
_CLAIMS: Final = "sys:upload-claims"
_RESULT: Final = "result:"
"""Before the names of attributes: of what an upload was completed as."""

Step = Callable[[Attributes], Attributes | None]


def is_over(said: Attributes) -> bool:
    """Whether an upload takes no parts any more."""
    return said[STATE] in (COMPLETED, ABORTED)


def is_completed_with(said: Attributes, fingerprint: str) -> bool:
    """Whether an upload was completed, with these parts."""
    return said[STATE] == COMPLETED and fingerprint_of(said) == fingerprint


def begun(said: Attributes, note: str) -> dict[str, str]:
    """Return what the record of a new upload says."""
    return {**said, STATE: OPEN, "type": f"{OPEN} {note}"}


def note_of(content_type: str) -> str | None:
    """Return the note of an upload by the type of its record; None: it is over."""
    state, _, note = content_type.partition(" ")
    return note if state == OPEN else None


def new_claim(now_us: int, random: bytes) -> str:
    """Return a claim that tells when it was made. `random`: 4 bytes."""
    return f"{now_us:016x}{random.hex()}"


def claimed_us(said: Attributes) -> int:
    """Return when the last claim was made that stands; 0: none does."""
    return max((int(claim[:16], 16) for claim in _claims(said)), default=0)


def has_claim(said: Attributes, claim: str) -> bool:
    """Whether a claim stands."""
    return claim in _claims(said)


def fingerprint_of(said: Attributes) -> str:
    """Return what an upload is being completed with, or was; empty: neither."""
    return said.get(_FINGERPRINT, "")


def result_of(said: Attributes) -> dict[str, str]:
    """Return what an upload was completed as."""
    return {name.removeprefix(_RESULT): value for name, value in said.items() if name.startswith(_RESULT)}


def claiming(claim: str, fingerprint: str) -> Step:
    """Return the step by which somebody begins to complete an upload."""

    def step(said: Attributes) -> Attributes | None:
        claims = _claims(said)
        is_same = said[STATE] == COMPLETING and fingerprint_of(said) == fingerprint
        if not (said[STATE] == OPEN or is_same) or len(claims) >= CLAIMS_MAX:
            return None
        return {**said, STATE: COMPLETING, _FINGERPRINT: fingerprint, _CLAIMS: " ".join([*claims, claim])}

    return step


def releasing(claim: str) -> Step:
    """Return the step by which one who claimed an upload, and wrote nothing, leaves it to others."""

    def step(said: Attributes) -> Attributes | None:
        claims = _claims(said)
        if claim not in claims:
            return None
        left = [one for one in claims if one != claim]
        return {**said, _CLAIMS: " ".join(left)} if left else reopening(said)

    return step


def reopening(said: Attributes) -> Attributes | None:
    """The step back to open, once it is known that no claim came to anything or can yet."""
    if said[STATE] != COMPLETING:
        return None
    kept = {name: value for name, value in said.items() if name not in (_CLAIMS, _FINGERPRINT)}
    return {**kept, STATE: OPEN}


def finishing(written: Attributes) -> Step:
    """Return the step to completed. `written`: the attributes of the object, some of which are told again."""
    fingerprint = written[manifests.FINGERPRINT]
    told = {
        _RESULT + name: value
        for name, value in written.items()
        if name == "etag" or name.startswith("sys:checksum")
    }

    def step(said: Attributes) -> Attributes | None:
        if said[STATE] != COMPLETING or fingerprint_of(said) != fingerprint:
            return None
        kept = {name: value for name, value in said.items() if name != _CLAIMS}
        return {**kept, **told, STATE: COMPLETED, "type": COMPLETED}

    return step


def aborting(said: Attributes) -> Attributes | None:
    """The step by which an upload is given up, by one more where several do."""
    return {**said, STATE: ABORTED, "type": ABORTED} if said[STATE] in (OPEN, ABORTED) else None


def _claims(said: Attributes) -> list[str]:
    return said.get(_CLAIMS, "").split()
