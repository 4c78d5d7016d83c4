"""Users over a small store: who is let in, what a change means, and what is left when one is cut short."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

import pytest

from proxy.auth.directory import (
    AccessKeyTaken,
    DirectoryError,
    NoSuchAccessKey,
    NoSuchUser,
    TooManyAccessKeys,
    UserExists,
)
from proxy.auth.records import ACCESS_KEYS_MAX, User, UserName
from proxy.auth.users import S3Key, Users
from proxy.store.contract import Store
from proxy.store.errors import Unavailable
from swiftlike.user_config import UserConfig, UserRefused
from tests.unit.proxy.auth.small_store import SmallStore
from tests.unit.proxy.auth.virtual import in_virtual_time

SECRET = b"a secret of the cluster"
TESTER = UserName("test", "tester")
GUEST = UserName("test", "guest")
PAIR = S3Key("ACCESS", "sesame-sesame")
NOW_US = 1_700_000_000_000_000


def users_of(store: SmallStore, secret: bytes = SECRET) -> Users:
    return Users(cast(Store, store), secret, token_lifetime_s=3600, now_us=lambda: NOW_US)


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


async def listed(users: Users, account: str | None = None) -> list[User | UserName]:
    async with aclosing(users.list(account, deadline=soon())) as found:
        return [one async for one in found]


async def sign_in(users: Users, name: str, key: str) -> str | None:
    account, _, user = name.partition(":")
    signed_in = await users.sign_in(account, user, key, deadline=soon())
    return None if signed_in is None else signed_in.token


async def identify(users: Users, token: str | None) -> str | None:
    assert token is not None
    identity = await users.identify(token, deadline=soon())
    return None if identity is None else identity.name


# --- letting in --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_user_with_its_key_gets_a_token_that_says_who_it_is() -> None:
    async with users_of(SmallStore()) as users:
        await users.add(TESTER, ["admin"], key="hush", deadline=soon())
        signed_in = await users.sign_in("test", "tester", "hush", deadline=soon())
        assert signed_in is not None
        assert (signed_in.expires_s, signed_in.account) == (3600, b"AUTH_test")
        identity = await users.identify(signed_in.token, deadline=soon())
        assert identity == ("tester", "test", frozenset({"admin"}))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("test:tester", "Hush"),
        ("test:tester", ""),
        ("test:tester", "hush "),
        ("test:tester", "hush\udc80é"),
        ("test:nobody", "hush"),
        ("test:nobody", ""),
        ("test", "hush"),
        ("", ""),
        (":", "hush"),
        ("test:tester:", "hush"),
        ("test:tester\0", "hush"),
        ("te\ud800st:tester", "hush"),
        ("x" * 10_000, "hush"),
    ],
)
@in_virtual_time
async def test_whoever_is_wrong_is_turned_away(name: str, key: str) -> None:
    async with users_of(SmallStore()) as users:
        await users.add(TESTER, key="hush", deadline=soon())
        assert await sign_in(users, name, key) is None


@in_virtual_time
async def test_an_s3_key_names_its_user_and_its_secret() -> None:
    async with users_of(SmallStore()) as users:
        await users.add(TESTER, s3_key=PAIR, deadline=soon())
        found = await users.by_access_key("ACCESS", deadline=soon())
        assert found is not None
        assert (found[0].name, found[1]) == (TESTER, "sesame-sesame")
        for unknown in ("access", "ACCESS2", "", "a/b", "\0", "x" * 1000, "\udc80"):
            assert await users.by_access_key(unknown, deadline=soon()) is None


@in_virtual_time
async def test_requests_of_one_second_cost_one_look_up() -> None:
    store = SmallStore()
    async with users_of(store) as users:
        await users.add(TESTER, key="hush", s3_key=PAIR, deadline=soon())
        text = await sign_in(users, "test:tester", "hush")
        await users.by_access_key("ACCESS", deadline=soon())
        before = store.calls
        for _ in range(100):
            await identify(users, text)
            assert await users.by_access_key("ACCESS", deadline=soon())
        assert store.calls == before


@in_virtual_time
async def test_what_another_process_changed_holds_here_within_a_second() -> None:
    store = SmallStore()
    async with users_of(store) as here, users_of(store) as there:
        await there.add(TESTER, key="hush", s3_key=PAIR, deadline=soon())
        text = await sign_in(here, "test:tester", "hush")
        assert await here.by_access_key("ACCESS", deadline=soon())
        await there.rotate_key(TESTER, key="louder", deadline=soon())
        await there.remove_s3_key(TESTER, "ACCESS", deadline=soon())
        await asyncio.sleep(1.0)
        assert await here.by_access_key("ACCESS", deadline=soon()) is None
        assert await identify(here, text) is None
        assert await sign_in(here, "test:tester", "hush") is None
        assert await sign_in(here, "test:tester", "louder")


@in_virtual_time
async def test_a_removed_user_is_gone_with_its_tokens_and_s3_keys_even_when_its_name_comes_back() -> None:
    async with users_of(SmallStore()) as users:
        await users.add(TESTER, key="hush", s3_key=PAIR, deadline=soon())
        text = await sign_in(users, "test:tester", "hush")
        await users.remove(TESTER, deadline=soon())
        for _ in range(2):
            assert await identify(users, text) is None
            assert await users.by_access_key("ACCESS", deadline=soon()) is None
            if await users.by_name(*TESTER, deadline=soon()) is None:
                await users.add(TESTER, key="hush", deadline=soon())
        assert await sign_in(users, "test:tester", "hush")


@in_virtual_time
async def test_a_user_is_not_turned_away_because_the_cluster_does_not_answer() -> None:
    store = SmallStore()
    async with users_of(store) as users:
        await users.add(TESTER, key="hush", s3_key=PAIR, deadline=soon())
        store.fail_after = 0
        with pytest.raises(Unavailable):
            await sign_in(users, "test:tester", "hush")
        with pytest.raises(Unavailable):
            await users.by_access_key("ACCESS", deadline=soon())
        store.fail_after, store.gate = None, asyncio.Event()
        with pytest.raises(Unavailable, match="in time"):
            await sign_in(users, "test:tester", "hush")


# --- changing ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_keys_that_nobody_chose_are_long_and_never_the_same() -> None:
    async with users_of(SmallStore()) as users:
        tester = await users.add(TESTER, deadline=soon())
        guest = await users.add(GUEST, deadline=soon())
        pairs = {*tester.access_keys.items(), *guest.access_keys.items()}
        assert len(pairs) == 2
        assert all((len(access_key), len(secret)) == (20, 40) for access_key, secret in pairs)
        assert len({tester.key, guest.key}) == 2
        assert len(tester.key) == 32
        assert await sign_in(users, "test:tester", tester.key)


@in_virtual_time
async def test_a_user_exists_once() -> None:
    async with users_of(SmallStore()) as users:
        await users.add(TESTER, key="hush", s3_key=PAIR, deadline=soon())
        for s3_key in (PAIR, S3Key("OTHER", "x"), None):
            with pytest.raises(UserExists, match="test:tester exists already"):
                await users.add(TESTER, key="other", s3_key=s3_key, deadline=soon())
        assert await users.by_access_key("ACCESS", deadline=soon())
        await users.add(GUEST, s3_key=S3Key("OTHER", "x"), deadline=soon())


@in_virtual_time
async def test_an_s3_key_is_one_users_only() -> None:
    async with users_of(SmallStore()) as users:
        await users.add(TESTER, s3_key=PAIR, deadline=soon())
        with pytest.raises(AccessKeyTaken, match="already that of test:tester"):
            await users.add(GUEST, s3_key=PAIR, deadline=soon())
        assert await users.by_name(*GUEST, deadline=soon()) is None
        await users.add(GUEST, deadline=soon())
        with pytest.raises(AccessKeyTaken):
            await users.add_s3_key(GUEST, s3_key=PAIR, deadline=soon())
        await users.remove_s3_key(TESTER, "ACCESS", deadline=soon())
        await users.add_s3_key(GUEST, s3_key=S3Key("ACCESS", "new"), deadline=soon())
        found = await users.by_access_key("ACCESS", deadline=soon())
        assert found is not None
        assert (found[0].name, found[1]) == (GUEST, "new")


@in_virtual_time
async def test_a_user_has_several_s3_keys_up_to_a_bound() -> None:
    async with users_of(SmallStore()) as users:
        await users.add(TESTER, s3_key=PAIR, deadline=soon())
        pairs = [await users.add_s3_key(TESTER, deadline=soon()) for _ in range(ACCESS_KEYS_MAX - 1)]
        with pytest.raises(TooManyAccessKeys):
            await users.add_s3_key(TESTER, s3_key=S3Key("MORE", "x"), deadline=soon())
        await users.add(GUEST, s3_key=S3Key("MORE", "x"), deadline=soon())
        for access_key, secret in [PAIR, *pairs]:
            found = await users.by_access_key(access_key, deadline=soon())
            assert found is not None
            assert (found[0].name, found[1]) == (TESTER, secret)
        await users.add_s3_key(TESTER, s3_key=S3Key("ACCESS", "another"), deadline=soon())
        found = await users.by_access_key("ACCESS", deadline=soon())
        assert found is not None
        assert found[1] == "another"


@in_virtual_time
async def test_what_is_not_there_is_refused_by_name() -> None:
    async with users_of(SmallStore()) as users:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: users.remove(GUEST, deadline=soon()),
            lambda: users.rotate_key(GUEST, deadline=soon()),
            lambda: users.add_s3_key(GUEST, s3_key=PAIR, deadline=soon()),
            lambda: users.remove_s3_key(GUEST, "ACCESS", deadline=soon()),
        ]
        for is_empty in (True, False):
            for call in calls:
                with pytest.raises(NoSuchUser, match="no user test:guest"):
                    await call()
            if is_empty:
                await users.add(TESTER, s3_key=S3Key("OTHER", "x"), deadline=soon())
        with pytest.raises(NoSuchAccessKey, match="has no S3 key ACCESS"):
            await users.remove_s3_key(TESTER, "ACCESS", deadline=soon())
        with pytest.raises(NoSuchAccessKey):
            await users.remove_s3_key(TESTER, "OTHER2", deadline=soon())
        await users.add(GUEST, s3_key=PAIR, deadline=soon())
        with pytest.raises(NoSuchAccessKey):
            await users.remove_s3_key(TESTER, "ACCESS", deadline=soon())
        assert await users.by_access_key("ACCESS", deadline=soon())


@in_virtual_time
async def test_what_no_user_can_have_is_refused() -> None:
    async with users_of(SmallStore()) as users:
        for name in (UserName("te:st", "x"), UserName("test", ""), UserName("test", "\0")):
            with pytest.raises(UserRefused):
                await users.add(name, deadline=soon())
        for keywords in (
            {"roles": ["boss"]},
            {"key": "with space"},
            {"s3_key": S3Key("a/b", "x")},
            {"s3_key": S3Key("a", "")},
        ):
            with pytest.raises(UserRefused):
                await users.add(TESTER, **keywords, deadline=soon())
        assert await listed(users) == []


@in_virtual_time
async def test_users_are_listed_all_or_by_account() -> None:
    async with users_of(SmallStore()) as users:
        assert await listed(users) == []
        names = [UserName("a", "x"), UserName("test2", "a"), UserName("test", "a"), UserName("test", "b")]
        for name in reversed(names):
            await users.add(name, deadline=soon())
        assert [one.name for one in await listed(users) if isinstance(one, User)] == names
        assert [one.name for one in await listed(users, "test") if isinstance(one, User)] == names[2:]
        assert await listed(users, "tes") == []


# --- races, and changes cut short --------------------------------------------------------------------------------


@pytest.mark.parametrize("head_start", range(-12, 13))
@in_virtual_time
async def test_a_key_that_is_added_while_the_user_is_removed_goes_with_it(head_start: int) -> None:
    store = SmallStore()
    async with users_of(store) as one, users_of(store) as other:
        await one.add(TESTER, s3_key=PAIR, deadline=soon())

        async def after(turns: int, change: Awaitable[object]) -> object:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await change

        added, removed = await asyncio.gather(
            after(max(0, -head_start), other.add_s3_key(TESTER, deadline=soon())),
            after(max(0, head_start), one.remove(TESTER, deadline=soon())),
            return_exceptions=True,
        )
        assert isinstance(added, S3Key | NoSuchUser)
        assert removed is None
        assert store.held == {}


Change = Callable[[Users], Awaitable[object]]

CHANGES: dict[str, Change] = {
    "add": lambda users: users.add(GUEST, key="k", s3_key=S3Key("NEW", "n"), deadline=soon()),
    "remove": lambda users: users.remove(TESTER, deadline=soon()),
    "rotate": lambda users: users.rotate_key(TESTER, key="new", deadline=soon()),
    "add S3 key": lambda users: users.add_s3_key(TESTER, s3_key=S3Key("NEW", "n"), deadline=soon()),
    "remove S3 key": lambda users: users.remove_s3_key(TESTER, "ACCESS", deadline=soon()),
    "seed": lambda users: users.seed(FILE, deadline=soon()),
}
FILE: list[UserConfig] = [
    UserConfig("test", "tester", "filed", ("admin",), "NEW", "n"),
    UserConfig("test", "guest", "k"),
]


def state_of(store: SmallStore) -> dict[bytes, object]:
    """What stands there, without what is drawn anew each time."""
    return {
        name.name: [*sorted(info.attributes), info.attributes.get("sys:user")]
        for name, info in store.held.items()
    }


async def works(users: Users) -> AsyncIterator[tuple[str, UserName]]:
    """Yield every S3 key that works, with its user."""
    for access_key in ("ACCESS", "NEW", "OTHER"):
        found = await users.by_access_key(access_key, deadline=soon())
        if found is not None:
            yield access_key, found[0].name


@pytest.mark.parametrize("what", CHANGES)
@in_virtual_time
async def test_a_change_cut_short_anywhere_breaks_nothing_and_can_be_repeated(what: str) -> None:
    async def world() -> SmallStore:
        store = SmallStore()
        async with users_of(store) as users:
            await users.add(TESTER, key="hush", s3_key=PAIR, deadline=soon())
            await users.add(UserName("other", "u"), s3_key=S3Key("OTHER", "o"), deadline=soon())
        return store

    whole = await world()
    before = whole.calls
    async with users_of(whole) as users:
        await CHANGES[what](users)
        steps = whole.calls - before
        wanted = {found async for found in works(users)}
    assert steps > 1 or what == "rotate"
    for cut in range(steps):
        store = await world()
        async with users_of(store) as users:
            store.fail_after = cut
            with pytest.raises(Unavailable):
                await CHANGES[what](users)
            store.fail_after = None
        async with users_of(store) as users:
            working = {found async for found in works(users)}
            assert ("OTHER", UserName("other", "u")) in working
            assert all(owner == TESTER for access_key, owner in working if access_key == "ACCESS")
            if what == "remove":
                assert await users.by_name(*TESTER, deadline=soon()), "a removal is done when all is gone"
            try:
                await CHANGES[what](users)
            except DirectoryError as refused:
                pytest.fail(f"cut after {cut} of {steps}: {refused}")
            assert {found async for found in works(users)} == wanted
        assert state_of(store) == state_of(whole), f"cut after {cut}"


@in_virtual_time
async def test_a_pointer_that_an_interrupted_change_left_can_be_taken_back() -> None:
    store = SmallStore()
    async with users_of(store) as users:
        await users.add(GUEST, deadline=soon())
        await users.add(TESTER, deadline=soon())
        store.fail_after = 2  # the user is read, the key is claimed
        with pytest.raises(Unavailable):
            await users.add_s3_key(TESTER, s3_key=PAIR, deadline=soon())
        store.fail_after = None
        assert await users.by_access_key("ACCESS", deadline=soon()) is None
        with pytest.raises(AccessKeyTaken, match="that of test:tester; remove it there"):
            await users.add_s3_key(GUEST, s3_key=PAIR, deadline=soon())
        await users.remove_s3_key(TESTER, "ACCESS", deadline=soon())
        await users.add_s3_key(GUEST, s3_key=PAIR, deadline=soon())
        assert await users.by_access_key("ACCESS", deadline=soon())


# --- seeding -----------------------------------------------------------------------------------------------------


def filed(user: str = "tester", key: str = "filed", access_key: str = "ACCESS", **more: object) -> UserConfig:
    secret = "sesame" if access_key else ""
    return UserConfig("test", user, key, ("admin",), access_key, str(more.get("secret", secret)))


@in_virtual_time
async def test_a_file_makes_its_users_and_a_second_start_changes_nothing() -> None:
    store = SmallStore()
    async with users_of(store) as users:
        assert await users.seed([filed(), filed("guest", access_key="")], deadline=soon()) == ()
        text = await sign_in(users, "test:tester", "filed")
        assert await users.by_access_key("ACCESS", deadline=soon())
        guest = await users.by_name("test", "guest", deadline=soon())
        assert guest is not None
        assert guest.access_keys == {}
    held = dict(store.held)
    async with users_of(store) as users:
        assert await users.seed([filed(), filed("guest", access_key="")], deadline=soon()) == ()
        assert store.held == held
        assert await identify(users, text) == "test:tester"


@in_virtual_time
async def test_processes_that_seed_at_the_same_moment_agree() -> None:
    store = SmallStore()
    async with users_of(store) as one, users_of(store) as two, users_of(store) as three:
        files = [filed(), filed("guest", access_key="OTHER")]
        ends = await asyncio.gather(*(users.seed(files, deadline=soon()) for users in (one, two, three)))
        assert ends == [(), (), ()]
        text = await sign_in(one, "test:tester", "filed")
        assert await identify(three, text) == "test:tester"


@in_virtual_time
async def test_the_files_word_wins_over_what_was_changed_since() -> None:
    async with users_of(SmallStore()) as users:
        await users.add(TESTER, ["reseller_admin"], key="old", s3_key=S3Key("ACCESS", "old"), deadline=soon())
        await users.add_s3_key(TESTER, s3_key=S3Key("EXTRA", "x"), deadline=soon())
        assert await users.seed([filed()], deadline=soon()) == ()
        user = await users.by_name(*TESTER, deadline=soon())
        assert user is not None
        assert (user.key, user.roles) == ("filed", frozenset({"admin"}))
        assert user.access_keys == {"ACCESS": "sesame", "EXTRA": "x"}, "what was added beside it stays"
        await users.rotate_key(TESTER, key="mine", deadline=soon())
        await users.seed([filed()], deadline=soon())
        assert await sign_in(users, "test:tester", "filed")


@in_virtual_time
async def test_an_s3_key_that_the_file_no_longer_names_is_gone_and_one_added_by_hand_is_not() -> None:
    async with users_of(SmallStore()) as users:
        await users.seed([filed(access_key="FIRST")], deadline=soon())
        await users.add_s3_key(TESTER, s3_key=S3Key("HAND", "x"), deadline=soon())
        for access_key, working in (("SECOND", {"SECOND", "HAND"}), ("", {"HAND"})):
            assert await users.seed([filed(access_key=access_key)], deadline=soon()) == ()
            found = {
                one
                for one in ("FIRST", "SECOND", "HAND")
                if await users.by_access_key(one, deadline=soon()) is not None
            }
            assert found == working
        await users.add(GUEST, s3_key=S3Key("FIRST", "again"), deadline=soon())


@pytest.mark.parametrize("is_kept", [True, False], ids=["the owner stays", "the owner left the file"])
@pytest.mark.parametrize("is_first", [True, False])
@in_virtual_time
async def test_a_file_moves_its_s3_key_to_another_user(is_kept: bool, is_first: bool) -> None:
    async with users_of(SmallStore()) as users:
        await users.seed([filed()], deadline=soon())
        moved = [filed("guest"), *([filed(access_key="OTHER")] if is_kept else [])]
        assert await users.seed(moved if is_first else moved[::-1], deadline=soon()) == ()
        found = await users.by_access_key("ACCESS", deadline=soon())
        assert found is not None
        assert found[0].name == GUEST
        tester = await users.by_name(*TESTER, deadline=soon())
        assert tester is not None
        assert set(tester.access_keys) == ({"OTHER"} if is_kept else set())


@in_virtual_time
async def test_a_file_does_not_take_a_key_that_was_given_by_hand_and_seeds_the_others() -> None:
    async with users_of(SmallStore()) as users:
        await users.add(UserName("other", "u"), s3_key=PAIR, deadline=soon())
        (refused,) = await users.seed([filed(), filed("guest", access_key="G")], deadline=soon())
        assert isinstance(refused, AccessKeyTaken)
        assert "already that of other:u" in str(refused)
        assert await users.by_access_key("G", deadline=soon())
        found = await users.by_access_key("ACCESS", deadline=soon())
        assert found is not None
        assert found[0].name == ("other", "u")


# --- secrets -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_nothing_that_is_stored_shown_or_logged_holds_a_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    store = SmallStore()
    async with users_of(store) as users:
        user = await users.add(TESTER, key="hush-hush", s3_key=PAIR, deadline=soon())
        await users.seed([filed("guest", "filed-away", "GUEST", secret="sesame-sesame")], deadline=soon())
        text = await sign_in(users, "test:tester", "hush-hush")
        everything = f"{store.held} {user} {users} {PAIR} {await listed(users)} {caplog.text} {text}"
    for secret in ("hush", "sesame", "filed-away"):
        assert secret not in everything


@in_virtual_time
async def test_under_another_clusters_secret_users_are_turned_away_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = SmallStore()
    async with users_of(store) as users:
        await users.add(TESTER, key="hush", s3_key=PAIR, deadline=soon())
        text = await sign_in(users, "test:tester", "hush")
    async with users_of(store, b"another secret of a cluster") as users:
        assert await sign_in(users, "test:tester", "hush") is None
        assert await identify(users, text) is None
        assert await users.by_access_key("ACCESS", deadline=soon()) is None
        assert "test:tester is turned away" in caplog.text
        assert await listed(users) == [TESTER]
        assert await users.rotate_key(TESTER, key="again", deadline=soon())
        assert await sign_in(users, "test:tester", "again")
        assert await users.by_access_key("ACCESS", deadline=soon()) is None, "each secret is its own"
        assert "S3 keys of user test:tester do not open and are turned away: ACCESS" in caplog.text
        await users.add_s3_key(TESTER, s3_key=PAIR, deadline=soon())
        assert await users.by_access_key("ACCESS", deadline=soon())


@in_virtual_time
async def test_a_file_brings_its_users_back_under_another_clusters_secret() -> None:
    store = SmallStore()
    async with users_of(store) as users:
        await users.seed([filed()], deadline=soon())
        await users.add_s3_key(TESTER, deadline=soon())
    async with users_of(store, b"another secret of a cluster") as users:
        await users.seed([filed()], deadline=soon())
        text = await sign_in(users, "test:tester", "filed")
        assert await users.by_access_key("ACCESS", deadline=soon())
        held = dict(store.held)
        await users.seed([filed()], deadline=soon())
        assert store.held == held, "a key that no longer opens does not make every start write anew"
        assert await identify(users, text) == "test:tester"


@in_virtual_time
async def test_a_record_moved_to_another_users_name_opens_nothing() -> None:
    store = SmallStore()
    async with users_of(store) as users:
        await users.add(TESTER, key="hush", deadline=soon())
        ((name, info),) = [(one, held) for one, held in store.held.items() if one.name == b"test:tester"]
        store.held[name._replace(name=b"test:guest")] = info
        assert await sign_in(users, "test:guest", "hush") is None
