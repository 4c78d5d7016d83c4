"""Who may do what, and who may not: the table of the one decision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.acls import parse_acl
from proxy.auth.decisions import Acls, Action, Grant, Group, Permission, decide
from proxy.auth.identities import ANONYMOUS, Identity, account_of
from swiftlike.user_config import Role

ACCOUNT = b"AUTH_test"
ADMIN = Identity("tester", "test", frozenset({Role.ADMIN}))
PLAIN = Identity("guest", "test")
OTHER = Identity("tester2", "test2", frozenset({Role.ADMIN}))
RESELLER = Identity("boss", "hq", frozenset({Role.RESELLER_ADMIN}))

OF_ACCOUNTS = {Action.CREATE_ACCOUNT, Action.DELETE_ACCOUNT}


def allowed(identity: Identity, acls: Acls, referer: str = "") -> set[Action]:
    return {action for action in Action if decide(identity, action, ACCOUNT, acls, referer=referer).allowed}


def swift(read: str = "", write: str = "") -> Acls:
    return Acls(parse_acl(read), parse_acl(write, is_write=True))


def bucket(*grants: Grant) -> Acls:
    return Acls(bucket=grants)


def of_object(*grants: Grant) -> Acls:
    return Acls(object=grants)


def test_an_admin_owns_its_account_but_does_not_make_or_delete_it() -> None:
    assert allowed(ADMIN, Acls()) == set(Action) - OF_ACCOUNTS
    assert all(decide(ADMIN, action, ACCOUNT).is_owner for action in Action)


def test_a_reseller_admin_does_everything_everywhere() -> None:
    assert allowed(RESELLER, Acls()) == set(Action)
    assert decide(RESELLER, Action.DELETE_ACCOUNT, b"AUTH_anything").is_owner


@pytest.mark.parametrize("identity", [PLAIN, OTHER, ANONYMOUS], ids=lambda one: one.name)
def test_nobody_else_does_anything_without_a_grant(identity: Identity) -> None:
    assert allowed(identity, Acls()) == set()
    assert not any(decide(identity, action, ACCOUNT).is_owner for action in Action)


@pytest.mark.parametrize("identity", [ADMIN, RESELLER, PLAIN, ANONYMOUS], ids=lambda one: one.name)
def test_nobody_at_all_reaches_what_is_hidden(identity: Identity) -> None:
    acls = Acls(parse_acl(".r:*,.rlistings,*"), parse_acl("*"), (ALL_FULL,), (ALL_FULL,))
    assert not any(decide(identity, action, b"\0auth", acls).allowed for action in Action)


@pytest.mark.parametrize("account", [b"test", b"AUTH_test2", b"AUTH_", b"auth_test", b"AUTH_test\0c", b""])
def test_an_admin_owns_no_account_but_its_own(account: bytes) -> None:
    assert not any(decide(ADMIN, action, account).allowed for action in Action)


def test_the_anonymous_own_nothing_whatever_the_account_is_called() -> None:
    roles = frozenset({Role.ADMIN, Role.RESELLER_ADMIN})
    assert not ANONYMOUS._replace(roles=roles).is_admin_of(account_of(""))


READS = {Action.READ_CONTAINER, Action.READ_OBJECT}
WRITES = {Action.WRITE_OBJECT, Action.DELETE_OBJECT}
ALL_FULL = Grant(Group.ALL_USERS, Permission.FULL_CONTROL)
ALL_READ = Grant(Group.ALL_USERS, Permission.READ)
KNOWN_READ = Grant(Group.AUTHENTICATED_USERS, Permission.READ)


@pytest.mark.parametrize(
    ("identity", "acls", "actions"),
    [
        pytest.param(OTHER, swift(read="test2:tester2"), READS, id="reader by name"),
        pytest.param(OTHER, swift(read="test2"), READS, id="reader by account"),
        pytest.param(PLAIN, swift(read="test"), READS, id="a user without role is a reader of its account's"),
        pytest.param(OTHER, swift(write="*:tester2"), WRITES, id="a writer does not read"),
        pytest.param(OTHER, swift("test2", "test2"), READS | WRITES, id="reader and writer"),
        pytest.param(OTHER, swift(read="test", write="test"), set(), id="others are meant"),
        pytest.param(OTHER, swift(read="*", write="*"), READS | WRITES, id="whoever is known"),
        pytest.param(ANONYMOUS, swift(read="*", write="*"), set(), id="the anonymous are not known"),
        pytest.param(ANONYMOUS, swift(read=".r:*"), {Action.READ_OBJECT}, id="public objects"),
        pytest.param(ANONYMOUS, swift(read=".r:*,.rlistings"), READS, id="public listing"),
        pytest.param(ANONYMOUS, swift(read=".rlistings"), set(), id="listings alone grant nothing"),
        pytest.param(OTHER, swift(read=".r:*"), {Action.READ_OBJECT}, id="the known are public too"),
        pytest.param(OTHER, swift(read=".r:-*,test2"), READS, id="a refused page does not refuse a user"),
        pytest.param(ANONYMOUS, bucket(ALL_READ), {Action.READ_CONTAINER}, id="public bucket"),
        pytest.param(ANONYMOUS, of_object(ALL_READ), {Action.READ_OBJECT}, id="public object"),
        pytest.param(ANONYMOUS, bucket(KNOWN_READ), set(), id="authenticated-read, anonymous"),
        pytest.param(OTHER, bucket(KNOWN_READ), {Action.READ_CONTAINER}, id="authenticated-read"),
        pytest.param(
            OTHER, bucket(Grant(b"AUTH_test2", Permission.WRITE)), WRITES, id="a bucket's WRITE to an account"
        ),
        pytest.param(
            OTHER, bucket(Grant(b"AUTH_test", Permission.FULL_CONTROL)), set(), id="to another account"
        ),
        pytest.param(
            ANONYMOUS, bucket(Grant(b"AUTH_", Permission.FULL_CONTROL)), set(), id="anonymous is no account"
        ),
        pytest.param(
            OTHER,
            bucket(Grant(b"AUTH_test2", Permission.FULL_CONTROL)),
            {*WRITES, Action.READ_CONTAINER, Action.READ_CONTAINER_ACL, Action.WRITE_CONTAINER_ACL},
            id="a bucket's FULL_CONTROL does not read its objects",
        ),
        pytest.param(
            OTHER,
            of_object(Grant(b"AUTH_test2", Permission.FULL_CONTROL)),
            {Action.READ_OBJECT, Action.READ_OBJECT_ACL, Action.WRITE_OBJECT_ACL},
            id="an object's FULL_CONTROL does not replace it",
        ),
        pytest.param(
            OTHER,
            bucket(Grant(b"AUTH_test2", Permission.READ_ACP)),
            {Action.READ_CONTAINER_ACL},
            id="READ_ACP of a bucket",
        ),
        pytest.param(
            OTHER,
            of_object(Grant(b"AUTH_test2", Permission.WRITE_ACP)),
            {Action.WRITE_OBJECT_ACL},
            id="WRITE_ACP of an object",
        ),
    ],
)
def test_a_grant_allows_just_what_it_says(identity: Identity, acls: Acls, actions: set[Action]) -> None:
    assert allowed(identity, acls) == actions
    assert not any(decide(identity, action, ACCOUNT, acls).is_owner for action in actions)


def test_a_page_of_the_right_host_reads_objects_and_no_other_page_does() -> None:
    acls = swift(read=".r:.example.com,.r:-bad.example.com")
    assert allowed(ANONYMOUS, acls, "https://www.example.com/p") == {Action.READ_OBJECT}
    assert allowed(ANONYMOUS, acls, "https://bad.example.com/p") == set()
    assert allowed(ANONYMOUS, acls) == set()


@pytest.mark.parametrize(
    ("identity", "action", "acls", "reason"),
    [
        (ADMIN, Action.READ_OBJECT, Acls(), "test:tester is an admin of the account"),
        (RESELLER, Action.READ_OBJECT, Acls(), "hq:boss is a reseller_admin"),
        (ADMIN, Action.DELETE_ACCOUNT, Acls(), "only a reseller_admin may delete the account"),
        (OTHER, Action.READ_OBJECT, swift(read=".r:*"), "the container's read ACL has .r:*"),
        (OTHER, Action.WRITE_OBJECT, swift(write="a,test2"), "the container's write ACL has test2"),
        (OTHER, Action.READ_OBJECT, of_object(ALL_READ), "the ACL of the object grants READ"),
        (ANONYMOUS, Action.WRITE_OBJECT, Acls(), "nothing allows anonymous to write the object"),
    ],
)
def test_a_decision_says_why(identity: Identity, action: Action, acls: Acls, reason: str) -> None:
    assert decide(identity, action, ACCOUNT, acls).reason == reason


@given(
    st.builds(
        Identity,
        st.sampled_from(["", "tester", "guest"]),
        st.sampled_from(["test2", "test3"]),
        st.frozensets(st.just(Role.ADMIN)),
    ),
    st.sampled_from(Action),
    st.lists(st.sampled_from([".r:*", ".rlistings", "*", "test2", "test3:guest"]), max_size=4).map(",".join),
    st.lists(st.sampled_from([ALL_READ, KNOWN_READ, ALL_FULL]), max_size=2).map(tuple),
)
def test_a_stranger_never_describes_makes_or_deletes_what_is_not_his(
    identity: Identity, action: Action, read: str, grants: tuple[Grant, ...]
) -> None:
    acls = Acls(parse_acl(read), parse_acl("*"), grants, grants)
    is_bare = decide(identity, action, ACCOUNT).allowed
    assert not is_bare, "without a grant there is nothing"
    if decide(identity, action, ACCOUNT, acls).allowed:
        assert action in READS | WRITES | {
            Action.READ_CONTAINER_ACL,
            Action.WRITE_CONTAINER_ACL,
            Action.READ_OBJECT_ACL,
            Action.WRITE_OBJECT_ACL,
        }
