"""The grammar of container ACLs, and whom each item means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.acls import (
    ACL_BYTES_MAX,
    NOBODY,
    Acl,
    AclRefused,
    Item,
    Listings,
    Members,
    Referrer,
    parse_acl,
)
from proxy.auth.identities import ANONYMOUS, Identity

TESTER = Identity("tester", "test")


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", []),
        (" , ,, ", []),
        (".r:*", [Referrer("*")]),
        (".r: *", [Referrer("*")]),
        (".ref:*,.referer:a.com,.REFERRER:.b.com", [Referrer("*"), Referrer("a.com"), Referrer(".b.com")]),
        (".r:-bad.example.com", [Referrer("bad.example.com", True)]),
        (".r:- .Example.COM", [Referrer(".example.com", True)]),
        (".r:*.example.com", [Referrer(".example.com")]),
        (".r:-*.example.com", [Referrer(".example.com", True)]),
        (".r:[2001:db8::1]", [Referrer("[2001:db8::1]")]),
        (".r:10.0.0.1", [Referrer("10.0.0.1")]),
        (".rlistings", [Listings()]),
        ("test", [Members("test")]),
        ("test:tester", [Members("test", "tester")]),
        ("test:*", [Members("test", "*")]),
        ("*:tester", [Members("*", "tester")]),
        ("*", [Members("*")]),
        ("*:*", [Members("*", "*")]),
        (
            " test:tester , .r:* ,.rlistings,test2",
            [Members("test", "tester"), Referrer("*"), Listings(), Members("test2")],
        ),
    ],
)
def test_an_acl_is_read(text: str, items: list[Item]) -> None:
    assert parse_acl(text) == Acl(tuple(items))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (".r:", "names no host"),
        (".r:-", "names no host"),
        (".r:.", "names no host"),
        (".r:*.", "names no host"),
        (".r:a b", "names no host"),
        (".r:a..b", "names no host"),
        (".r:http://a.com", "names no host"),
        (".r:a.com:80", "names no host"),
        (".r:é.com", "names no host"),
        (".r", "is unknown"),
        (".rlisting", "is unknown"),
        (".rlistings:x", "is unknown"),
        (".unknown:x", "is unknown"),
        (".", "is unknown"),
        (":", "no ACL item"),
        (":tester", "no ACL item"),
        ("test:", "no ACL item"),
        ("test:a:b", "no ACL item"),
        ("te st", "no ACL item"),
        ("te*", "no ACL item"),
        ("test:t*", "no ACL item"),
        ("**", "no ACL item"),
        ("té", "no ACL item"),
        ("a\0b", "no ACL item"),
        ("a\udc80", "no ACL item"),
        ("AUTH_test/c", "no ACL item"),
        ("ok,ok:ok,not ok", "'not ok' is no ACL item"),
        ("a" * (ACL_BYTES_MAX + 1), "over 8192 bytes"),
    ],
)
def test_what_is_no_acl_is_refused_with_the_item_and_a_sentence(text: str, sentence: str) -> None:
    for is_write in (False, True):
        if is_write and text.startswith("."):
            continue
        with pytest.raises(AclRefused, match=sentence):
            parse_acl(text, is_write=is_write)


@pytest.mark.parametrize("text", [".r:*", ".r:-a.com", ".rlistings", "test, .r:*", ".referrer:x", ".x"])
def test_a_write_acl_names_users_only(text: str) -> None:
    with pytest.raises(AclRefused, match="anyone can send a Referer"):
        parse_acl(text, is_write=True)
    assert parse_acl("test:tester,*", is_write=True).names(TESTER)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (" test:tester , test2 ,", "test:tester,test2"),
        (".referrer:*.Example.com", ".r:.example.com"),
        (".ref: -a.com,.rlistings", ".r:-a.com,.rlistings"),
        ("test:*,*,*:*,*:u", "test:*,*,*:*,*:u"),
        ("", ""),
    ],
)
def test_an_acl_is_written_in_one_form(text: str, written: str) -> None:
    assert str(parse_acl(text)) == written


@pytest.mark.parametrize(
    ("text", "identity", "is_named"),
    [
        ("test:tester", TESTER, True),
        ("test", TESTER, True),
        ("test:*", TESTER, True),
        ("*:tester", TESTER, True),
        ("*", TESTER, True),
        ("*:*", TESTER, True),
        ("other,test:tester", TESTER, True),
        ("", TESTER, False),
        (".r:*,.rlistings", TESTER, False),
        ("test:other", TESTER, False),
        ("other:tester", TESTER, False),
        ("tester", TESTER, False),
        ("Test", TESTER, False),
        ("AUTH_test", TESTER, False),
        ("*:other", TESTER, False),
        ("*", ANONYMOUS, False),
        ("*:*", ANONYMOUS, False),
        ("test", ANONYMOUS, False),
    ],
)
def test_an_item_names_a_user_or_does_not(text: str, identity: Identity, is_named: bool) -> None:
    assert (parse_acl(text).names(identity) is not None) is is_named


@pytest.mark.parametrize(
    ("text", "referer", "is_welcome"),
    [
        ("", "", False),
        ("test", "http://a.com/", False),
        (".rlistings", "http://a.com/", False),
        (".r:*", "", True),
        (".r:*", "nonsense", True),
        (".r:*", "http://[::1", True),
        (".r:a.com", "http://a.com/page?x", True),
        (".r:a.com", "https://user:pass@A.COM:8443/page", True),
        (".r:a.com", "http://www.a.com/", False),
        (".r:a.com", "http://a.com.evil.net/", False),
        (".r:a.com", "a.com", False),
        (".r:a.com", "", False),
        (".r:a.com", "http://[::1", False),
        (".r:.a.com", "http://www.a.com/", True),
        (".r:.a.com", "http://x.y.a.com/", True),
        (".r:.a.com", "http://a.com/", False),
        (".r:.a.com", "http://evila.com/", False),
        (".r:[::1]", "http://[::1]:8080/", True),
        (".r:*,.r:-a.com", "http://a.com/", False),
        (".r:*,.r:-a.com", "http://b.com/", True),
        (".r:*,.r:-a.com", "", True),
        (".r:-a.com,.r:*", "http://a.com/", True),
        (".r:.a.com,.r:-bad.a.com", "http://bad.a.com/", False),
        (".r:*,.r:-*", "http://a.com/", False),
        (".r:-a.com", "http://b.com/", False),
    ],
)
def test_a_referrer_is_let_in_or_is_not(text: str, referer: str, is_welcome: bool) -> None:
    assert (parse_acl(text).welcomes(referer) is not None) is is_welcome


def test_listings_are_granted_by_their_own_item() -> None:
    assert parse_acl(".r:*,.rlistings").grants_listings
    assert not parse_acl(".r:*").grants_listings
    assert not NOBODY.grants_listings


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@+=-]{0,20}", fullmatch=True)
HOSTS = st.from_regex(r"\.?[a-z0-9]+(\.[a-z0-9]+){0,3}", fullmatch=True)
ITEMS = st.one_of(
    st.builds(Referrer, st.just("*") | HOSTS, st.booleans()),
    st.just(Listings()),
    st.builds(Members, NAMES | st.just("*"), st.none() | st.just("*") | NAMES),
)
ACLS = st.builds(Acl, st.lists(ITEMS, max_size=8).map(tuple))


@given(ACLS)
def test_what_is_written_reads_back_the_same(acl: Acl) -> None:
    assert parse_acl(str(acl)) == acl


@given(st.text(max_size=60) | st.text(".r:*-,a b\0é[]", max_size=30), st.booleans())
def test_any_text_is_an_acl_with_one_form_or_refused(text: str, is_write: bool) -> None:
    try:
        acl = parse_acl(text, is_write=is_write)
    except AclRefused:
        return
    assert parse_acl(str(acl), is_write=is_write) == acl
    assert str(acl).isascii()


@given(ACLS, st.text(max_size=40) | HOSTS.map("http://{}/".format))
def test_a_referer_never_helps_where_no_item_names_a_host(acl: Acl, referer: str) -> None:
    welcomed = acl.welcomes(referer)
    assert welcomed is None or welcomed in acl.items
    without = Acl(tuple(one for one in acl.items if not isinstance(one, Referrer)))
    assert without.welcomes(referer) is None
