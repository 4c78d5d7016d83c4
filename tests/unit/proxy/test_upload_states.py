"""The states of an upload's record, and what an entry says of the upload that it came from."""

from proxy.store import manifests
from proxy.store.manifests import Manifest, Origin
from proxy.store.upload_states import (
    COMPLETED,
    OPEN,
    STATE,
    begun,
    claiming,
    finishing,
    has_claim,
    releasing,
    reopening,
    result_of,
)
from swiftlike.entries import Entry, pack_metadata
from swiftlike.timestamps import NO_INCARNATION, NO_WRITE, ZERO_BALLOT

ORIGIN = Origin("upload", "these", NO_INCARNATION)
WRITTEN = {"etag": "e-1", **manifests.attributes_for(Manifest(()), ORIGIN)}


def test_a_claim_stands_until_it_is_given_back_or_the_upload_is_over() -> None:
    said = claiming("1", "these")(begun({}, "note"))
    assert said is not None
    said = claiming("2", "these")(said)
    assert said is not None
    assert [has_claim(said, claim) for claim in "123"] == [True, True, False]
    left = releasing("1")(said)
    assert left is not None
    assert [has_claim(left, claim) for claim in "12"] == [False, True]
    opened, over = reopening(said), finishing(WRITTEN)(said)
    assert opened is not None
    assert over is not None
    assert (opened[STATE], has_claim(opened, "2")) == (OPEN, False)
    assert (over[STATE], has_claim(over, "2"), result_of(over)) == (COMPLETED, False, {"etag": "e-1"})


def test_what_is_over_is_neither_claimed_nor_opened_nor_finished_again() -> None:
    said = claiming("1", "these")(begun({}, "note"))
    assert said is not None
    over = finishing(WRITTEN)(said)
    assert over is not None
    for step in (claiming("2", "these"), releasing("1"), reopening, finishing(WRITTEN)):
        assert step(over) is None


def test_an_object_is_from_an_upload_that_was_completed_with_these_parts() -> None:
    entry = Entry(ZERO_BALLOT, NO_WRITE, 0, metadata=pack_metadata(WRITTEN))
    assert manifests.is_from(entry, ORIGIN)
    assert not manifests.is_from(entry, ORIGIN._replace(upload="other"))
    assert not manifests.is_from(entry, ORIGIN._replace(fingerprint="others"))
    assert not manifests.is_from(entry._replace(tombstone=True), ORIGIN)
    assert not manifests.is_from(entry._replace(metadata=pack_metadata({"etag": "e-1"})), ORIGIN)
    assert not manifests.is_from(None, ORIGIN)
