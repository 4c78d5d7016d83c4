"""Offers that travel together: what shares a call, and that each has an outcome of its own."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from storage_node.store import Offered, Outcome
from swiftlike import joined_offers
from swiftlike.entries import Entry, encode
from swiftlike.joined_offers import Answer, JoinedOffers, Offering
from swiftlike.limits import (
    OFFER_JOINED_BYTES_MAX,
    OFFERS_BATCH_BYTES_MAX,
    OFFERS_BATCH_MAX,
    RPC_BODY_BYTES_MAX,
)
from swiftlike.node_calls import Acceptance, Code, Method, pack_list
from swiftlike.node_client import NodeFailed
from swiftlike.packed_offers import pack_offer, unpack_offered
from swiftlike.rpc.transport import Outcome as Ended
from swiftlike.rpc.transport import Reply, failed
from swiftlike.timestamps import Offer
from tests.cluster.node.conftest import EPOCH, Node
from tests.engine.samples import OBJECTS, ballot, object_key, post, put

PATH = object_key("o").path


def offering(name: str, entry: Entry, body: bytes | None = None, **options: Any) -> Offering:
    return Offering(OBJECTS, object_key(name).path, entry, body, **options)


async def ask(node: Node, *offers: Offering, epoch: int = EPOCH) -> list[Answer]:
    """Make offers in one turn of the loop."""
    joined = JoinedOffers(node.transport)
    deadline = node.transport.now() + 10
    return await asyncio.gather(*(joined.ask(node.address, epoch, each, deadline) for each in offers))


def code_of(answer: Answer) -> str:
    assert isinstance(answer, NodeFailed), answer
    assert answer.reply.outcome is Ended.ERROR
    return answer.reply.code


def calls(node: Node) -> tuple[int, int]:
    """How many calls of several, and offers in all, were answered."""
    return node.service.counts["offers", "ok"], node.service.counts["offer", "ok"]


async def test_offers_of_one_turn_travel_in_one_call_and_each_is_stored(node: Node) -> None:
    entries = {f"o{number}": put(1, b"body %d" % number) for number in range(5)}
    answers = await ask(
        node,
        *(offering(name, entry, b"body %d" % number) for number, (name, entry) in enumerate(entries.items())),
    )
    assert [isinstance(answer, Acceptance) and answer.counts and answer.votes for answer in answers] == [
        True
    ] * 5
    assert calls(node) == (1, 5)
    for number, (name, entry) in enumerate(entries.items()):
        found = await node.client.get(OBJECTS, object_key(name).path)
        assert (found.entry, found.body) == (entry, b"body %d" % number)


async def test_each_offer_of_a_call_has_its_own_outcome(node: Node) -> None:
    old, newer = put(1, b"old"), put(9, b"newer")
    await node.client.offer(OBJECTS, object_key("newer").path, newer, b"newer")
    await node.client.offer(OBJECTS, object_key("old").path, old, b"old")
    other_body = put(5, b"lacking")
    answers = await ask(
        node,
        offering("fine", put(1, b"fine"), b"fine"),
        offering("newer", put(2, b"too late"), b"too late"),
        offering("ahead", put(61_000_000, b"x"), b"x"),
        offering("old", put(3, b"new"), b"new", owing=True),
        offering("size", put(1, b"four"), b"three"),
        Offering(OBJECTS, b"no path of an object", put(1, b"x"), b"x"),
        offering("body", post(2, put(1, b"elsewhere"))),
        offering("newer", other_body._replace(ballot=ballot(10))),
    )
    fine, late, ahead, replacing, size, path, without, wanting = answers
    assert isinstance(fine, Acceptance)
    assert fine.counts
    assert isinstance(late, Acceptance)
    assert (late.accepted, late.above) == (False, newer.ballot)
    assert code_of(ahead) == Code.BALLOT_REFUSED
    assert isinstance(replacing, Acceptance)
    assert replacing.counts
    assert replacing.replaced is not None
    assert (replacing.replaced.version, replacing.replaced.live) == (old.version, True)
    assert code_of(size) == Code.STORAGE_ERROR
    assert code_of(path) == Code.BAD_CALL
    assert isinstance(without, Acceptance)
    assert (without.accepted, without.whole) == (True, False)
    assert isinstance(wanting, Acceptance)
    assert wanting.wants_body
    assert calls(node)[0] == 1
    assert {key: number for key, number in node.service.counts.items() if key[0] == "offer"} == {
        ("offer", "ok"): 2 + 5,
        ("offer", Code.BALLOT_REFUSED): 1,
        ("offer", Code.STORAGE_ERROR): 1,
        ("offer", Code.BAD_CALL): 1,
    }


async def test_an_offer_of_two_that_say_the_same_is_known_the_second_time(node: Node) -> None:
    entry = put(1, b"x")
    first, second = await ask(node, offering("o", entry, b"x"), offering("o", entry, b"x"))
    assert isinstance(first, Acceptance)
    assert isinstance(second, Acceptance)
    assert first.counts
    assert second.counts


async def test_offers_placed_by_another_epoch_are_refused_and_nothing_is_kept(node: Node) -> None:
    for epoch, code in ((EPOCH - 1, Code.RING_OLDER), (EPOCH + 1, Code.RING_NEWER)):
        answers = await ask(
            node,
            offering("o", put(1, b"x"), b"x"),
            offering("p", put(1, b"x"), b"x"),
            epoch=epoch,
        )
        assert [code_of(answer) for answer in answers] == [code, code]
    assert node.store.read(object_key("o")) is None


async def test_offers_whose_turn_comes_under_a_newer_ring_keep_nothing(node: Node) -> None:
    node.rings.looks_until_newer = 1
    answers = await ask(node, offering("o", put(1, b"x"), b"x"), offering("p", put(1, b"x"), b"x"))
    assert [code_of(answer) for answer in answers] == [Code.RING_OLDER] * 2
    assert node.store.read(object_key("o")) is node.store.read(object_key("p")) is None


async def test_offers_that_are_done_while_the_ring_changes_do_not_count_and_refusals_stay_what_they_are(
    node: Node,
) -> None:
    node.rings.looks_until_newer = 3
    answers = await ask(
        node,
        offering("o", put(1, b"x"), b"x"),
        offering("ahead", put(61_000_000, b"x"), b"x"),
        offering("p", put(1, b"x"), b"x"),
    )
    assert [code_of(answer) for answer in answers] == [
        Code.RING_CHANGED,
        Code.BALLOT_REFUSED,
        Code.RING_CHANGED,
    ]
    assert isinstance(answers[0], NodeFailed)
    assert answers[0].reply.header == {"epoch": EPOCH + 1}
    assert node.store.read(object_key("o")) is not None


async def test_a_large_offer_makes_a_call_of_its_own(node: Node) -> None:
    body = bytes(RPC_BODY_BYTES_MAX)
    entry = put(1, body)
    answers = await ask(node, offering("large", entry, body), offering("small", put(1, b"x"), b"x"))
    assert all(isinstance(answer, Acceptance) and answer.counts for answer in answers)
    assert calls(node) == (1, 2)
    assert (await node.client.get(OBJECTS, object_key("large").path)).body == body


async def test_more_offers_than_a_call_takes_make_more_calls(node: Node) -> None:
    many = [offering(f"o{number}", put(1)) for number in range(OFFERS_BATCH_MAX + 1)]
    assert all(isinstance(answer, Acceptance) for answer in await ask(node, *many))
    assert calls(node) == (2, OFFERS_BATCH_MAX + 1)
    body = bytes(OFFER_JOINED_BYTES_MAX - 1_000)
    heavy = [
        offering(f"h{number}", put(1, body), body)
        for number in range(OFFERS_BATCH_BYTES_MAX // len(body) + 1)
    ]
    assert all(isinstance(answer, Acceptance) and answer.counts for answer in await ask(node, *heavy))
    assert calls(node)[0] == 4


async def test_an_offer_given_up_before_it_leaves_is_not_made_and_the_others_are(node: Node) -> None:
    joined, deadline = JoinedOffers(node.transport), node.transport.now() + 10
    gone = joined.ask(node.address, EPOCH, offering("gone", put(1)), deadline)
    stays = joined.ask(node.address, EPOCH, offering("stays", put(1)), deadline)
    gone.cancel()
    answer = await stays
    assert isinstance(answer, Acceptance)
    assert answer.counts
    assert node.store.read(object_key("gone")) is None
    alone = joined.ask(node.address, EPOCH, offering("alone", put(1)), deadline)
    alone.cancel()
    await node.client.health()
    assert calls(node) == (1, 1)


async def test_offers_of_other_deadlines_or_epochs_share_no_call(node: Node) -> None:
    joined, now = JoinedOffers(node.transport), node.transport.now()
    answers = await asyncio.gather(
        joined.ask(node.address, EPOCH, offering("o", put(1)), now + 10),
        joined.ask(node.address, EPOCH, offering("p", put(1)), now + 10 + 2 * joined_offers.DEADLINE_STEP_S),
        joined.ask(node.address, EPOCH + 1, offering("q", put(1)), now + 10),
    )
    assert isinstance(answers[0], Acceptance)
    assert isinstance(answers[1], Acceptance)
    assert code_of(answers[2]) == Code.RING_NEWER
    assert calls(node) == (2, 2)


async def test_offers_that_are_too_late_are_not_sent(node: Node) -> None:
    joined, now = JoinedOffers(node.transport), node.transport.now()
    asked = [joined.ask(node.address, EPOCH, offering(name, put(1)), now - 1) for name in "op"]
    for answer in await asyncio.gather(*asked):
        assert isinstance(answer, NodeFailed)
        assert answer.reply.outcome is Ended.NOT_SENT
    assert node.store.read(object_key("o")) is None


class Answering:
    """A transport whose peer answers each call with one and the same reply."""

    def __init__(self, node: Node, reply: Reply) -> None:
        self._reply = reply
        self.now = node.transport.now

    def ask(self, *arguments: object, **options: object) -> "asyncio.Future[Reply]":
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        answered.set_result(self._reply)
        return answered


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(Ended.UNKNOWN, code="lost"), Ended.UNKNOWN),
        (Reply(Ended.BUSY, code="busy"), Ended.BUSY),
        (failed(Code.DEVICE_FAILED, "it has failed"), Ended.ERROR),
        (Reply(body=b"\xc1"), Ended.UNKNOWN),
        (Reply(body=pack_list([(7, b"", b"")])), Ended.UNKNOWN),
        (Reply(body=pack_list([(7, b""), (7, b"")])), Ended.UNKNOWN),
        (Reply(body=pack_list([(7, b"\xff", b""), (7, b"", b"")])), Ended.UNKNOWN),
        (Reply(body=pack_list([(None, b"", b""), (7, b"", b"")])), Ended.UNKNOWN),
    ],
    ids=["lost", "busy", "failed", "no list", "too few", "too short", "no register", "no flags"],
)
async def test_how_a_call_fails_is_how_each_of_its_offers_does(
    node: Node, reply: Reply, outcome: Ended
) -> None:
    joined = JoinedOffers(Answering(node, reply))  # type: ignore[arg-type]  # it streams nothing
    asked = [joined.ask(node.address, EPOCH, offering(name, put(1)), 1e9) for name in "op"]
    for answer in await asyncio.gather(*asked):
        assert isinstance(answer, NodeFailed)
        assert answer.reply.outcome is outcome


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the body is no list"),
        (pack_list([]), f"must be 1 to {OFFERS_BATCH_MAX} offers"),
        (
            pack_list([(PATH, b"", None, "first", 0)] * (OFFERS_BATCH_MAX + 1)),
            "make another call for the rest",
        ),
        (pack_list([(PATH, b"", None, "first")]), "item 0 of the body must be the five values of an offer"),
        (pack_list([(PATH, b"", "text", "first", 0)]), "item 0 of the body must be the five values"),
        (pack_list([7]), "item 0 of the body must be the five values"),
    ],
)
async def test_a_body_that_is_no_list_of_offers_is_refused_as_a_whole(
    node: Node, body: bytes, sentence: str
) -> None:
    header = {"table": OBJECTS, "epoch": EPOCH}
    reply = await node.transport.call(
        node.address, "offers", header, body, deadline=node.transport.now() + 10
    )
    assert (reply.outcome, reply.code) == (Ended.ERROR, Code.BAD_CALL)
    assert sentence in reply.reason


async def test_a_wrong_value_of_one_offer_is_told_to_that_one(node: Node) -> None:
    entry = put(1, b"x")
    sound = pack_offer(PATH, encode(entry), b"x", Offer.FIRST, owing=True)
    damaged = pack_offer(PATH, encode(entry)[:-1] + b"\0", b"x", Offer.FIRST)
    strange = pack_list([(PATH, encode(entry), b"x", "later", 0), (PATH, encode(entry), b"x", "first", 4)])[
        1:
    ]
    body = b"\x94" + sound + damaged + strange
    header = {"table": OBJECTS, "epoch": EPOCH}
    reply = await node.transport.call(
        node.address, str(Method.OFFERS), header, body, deadline=node.transport.now() + 10
    )
    answers = unpack_offered(reply.body)
    assert isinstance(answers[0], Acceptance)
    assert answers[0].counts
    reasons = [answer.reason for answer in answers[1:] if not isinstance(answer, Acceptance)]
    assert "entry checksum mismatch" in reasons[0]
    assert all("circumstances or the flags" in reason for reason in reasons[1:])
    assert len(reasons) == 3


async def test_a_bug_met_by_one_offer_leaves_the_others_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_all = node.store.offer_all

    def stumble(offered: Sequence[Offered]) -> "asyncio.Future[Sequence[Outcome]]":
        done = offer_all(offered)

        async def swap() -> Sequence[Outcome]:
            return [Outcome(None, ZeroDivisionError("a bug")), *(await done)[1:]]

        return asyncio.ensure_future(swap())

    monkeypatch.setattr(node.store, "offer_all", stumble)
    broken, sound = await ask(node, offering("o", put(1)), offering("p", put(1)))
    assert isinstance(broken, NodeFailed)
    assert broken.reply.outcome is Ended.UNKNOWN
    assert isinstance(sound, Acceptance)
    assert sound.counts
    assert node.service.counts["offer", "bug"] == 1
