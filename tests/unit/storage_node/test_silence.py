"""Where a walk need not wait again: what speaks against a place, and what for it."""

from storage_node.keys import CONTAINERS, Key, Layout
from storage_node.silence import Silence

LAYOUT = Layout(7, {b"o\0": 16, CONTAINERS: 16})
PATIENCE_S = 5.0


def an_object(container: bytes, name: bytes) -> Key:
    return Key(b"o\0", b"acc\0" + container + b"\0" + name)


def test_two_that_were_waited_for_in_vain_speak_for_all_of_their_container() -> None:
    silence = Silence(LAYOUT, PATIENCE_S)
    silence.note(an_object(b"c", b"1"), 10.0, is_done=False)
    assert not silence.covers(an_object(b"c", b"2")), "one may have reasons of its own"
    silence.note(an_object(b"c", b"2"), 10.0, is_done=False)
    assert silence.covers(an_object(b"c", b"3"))
    assert not silence.covers(an_object(b"other", b"3"))


def test_what_could_not_be_done_quickly_holds_nobody_up_and_says_nothing() -> None:
    silence = Silence(LAYOUT, PATIENCE_S)
    for name in (b"1", b"2", b"3"):
        silence.note(an_object(b"c", name), 0.1, is_done=False)
    assert not silence.covers(an_object(b"c", b"4"))


def test_one_that_was_done_shows_that_its_place_answers() -> None:
    silence = Silence(LAYOUT, PATIENCE_S)
    silence.note(an_object(b"c", b"1"), 10.0, is_done=False)
    silence.note(an_object(b"c", b"2"), 10.0, is_done=True)
    silence.note(an_object(b"c", b"3"), 10.0, is_done=False)
    assert not silence.covers(an_object(b"c", b"4"))


def test_keys_of_one_partition_share_its_owners_whatever_their_containers() -> None:
    layout = Layout(7, {b"o\0": 0})
    silence = Silence(layout, PATIENCE_S)
    for container in (b"a", b"b"):
        silence.note(an_object(container, b"1"), 10.0, is_done=False)
    assert silence.covers(an_object(b"c", b"1"))


def test_the_listing_of_a_container_is_its_account() -> None:
    silence = Silence(LAYOUT, PATIENCE_S)
    for name in (b"1", b"2"):
        silence.note(Key(CONTAINERS, b"acc\0" + name), 10.0, is_done=False)
    assert silence.covers(Key(CONTAINERS, b"acc\0" + b"3"))
    assert not silence.covers(Key(CONTAINERS, b"other\0" + b"3"))
