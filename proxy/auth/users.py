"""Users: who a name, a key, a token or an S3 access key means, fresh to the second; and what can be changed about users.

Owns the rules of both: what is generated, what a configuration file may say over what stands, and which change is made
in which order. Never logs a secret, and never tells whether it was the name or the key that was wrong.

On the way of every request: nothing is asked of the cluster for a user who was looked up within the last second. What the store
raises while a user is looked up (`Unavailable`) comes through: nobody is let in, or turned away, on a guess.
"""

import hmac
import logging
import secrets
import string
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Final, NamedTuple, Self

from proxy.auth.directory import (
    AccessKeyTaken,
    Directory,
    DirectoryError,
    NoSuchAccessKey,
    NoSuchUser,
    TooManyAccessKeys,
    UserExists,
)
from proxy.auth.freshness import Fresh
from proxy.auth.identities import Identity, account_of
from proxy.auth.records import (
    ACCESS_KEYS_MAX,
    User,
    UserName,
    access_key_fields,
    access_key_from_file,
    access_keys_of,
    key_fields,
    marked_from_file,
    read_user,
    with_roles,
    without_access_key,
)
from proxy.auth.sealing import SealBroken, Sealer
from proxy.auth.tokens import GENERATION_BYTES, TokenRefused, Tokens
from proxy.store.contract import Store
from proxy.store.errors import Unavailable
from proxy.store.values import Attributes, Describe
from swiftlike.user_config import UserConfig, check_access_key, check_key, check_name, check_role

AGE_MAX_S: Final = 1.0
"""How old what is known of a user may be: so long a removed user or an old key still works."""

REMEMBERED_MAX: Final = 10_000
"""Users, and access keys, that a process remembers: some 10 MB."""

_LOG = logging.getLogger(__name__)
_LETTERS: Final = string.ascii_letters + string.digits
_KEY_CHARACTERS: Final = 32
_ACCESS_KEY_CHARACTERS: Final = 20
_SECRET_CHARACTERS: Final = 40


class SignedIn(NamedTuple):
    """What whoever signed in is given."""

    token: str
    expires_s: int
    """Seconds from now for which it is good."""
    account: bytes
    """The store's account that the user belongs to."""


class S3Key(NamedTuple):
    """An S3 key pair."""

    access_key: str
    secret: str

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"S3Key({self.access_key!r})"


class Users:
    """The users of one cluster; usable inside its context, which owns the look-ups under way.

    Deadlines are on the store's clock, which is the event loop's.
    """

    def __init__(self, store: Store, secret: bytes, token_lifetime_s: int, now_us: Callable[[], int]) -> None:
        """Take the store that keeps the users, the cluster's secret, how long a token is good, and the host's clock."""
        self._directory: Final = Directory(store)
        self._sealer: Final = Sealer(secret, b"users")
        self._tokens: Final = Tokens(secret, token_lifetime_s)
        self._now_us: Final = now_us
        self._users: Final = Fresh[UserName, User](self._look_up, AGE_MAX_S, REMEMBERED_MAX)
        self._owners: Final = Fresh[str, UserName](self._look_up_owner, AGE_MAX_S, REMEMBERED_MAX)
        self._context: Final = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin to own look-ups."""
        await self._context.enter_async_context(self._users)
        await self._context.enter_async_context(self._owners)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the look-ups under way."""
        await self._context.aclose()

    # --- on the way of every request --------------------------------------------------------------------------------

    async def by_name(self, account: str, user: str, *, deadline: float) -> User | None:
        """Return a user, at most a second old; None when there is none."""
        try:
            name = UserName(check_name("account", account), check_name("user", user))
            return await self._users.get(name, deadline=deadline)
        except ValueError:
            return None
        except TimeoutError:
            raise Unavailable("the user could not be looked up in time") from None

    async def by_access_key(self, access_key: str, *, deadline: float) -> tuple[User, str] | None:
        """Return whose S3 key it is, and its secret, at most a second old; None when it is nobody's."""
        try:
            check_access_key(access_key)
            owner = await self._owners.get(access_key, deadline=deadline)
            user = None if owner is None else await self._users.get(owner, deadline=deadline)
        except ValueError:
            return None
        except TimeoutError:
            raise Unavailable("the S3 key could not be looked up in time") from None
        if user is None or access_key not in user.access_keys:
            return None
        return user, user.access_keys[access_key]

    async def sign_in(self, account: str, user: str, key: str, *, deadline: float) -> SignedIn | None:
        """Return a new token for whoever knows the key of `account:user`; None when these do not fit, whichever is wrong."""
        found = await self.by_name(account, user, deadline=deadline)
        # Compared in any case, so that the time tells nothing either.
        is_right = hmac.compare_digest(_comparable(key), _comparable(found.key if found else ""))
        if found is None or not is_right:
            return None
        now_us = self._now_us()
        text, token = self._tokens.issue(*found.name, found.generation, now_us)
        return SignedIn(text, (token.until_us - now_us) // 1_000_000, account_of(account))

    async def identify(self, token: str, *, deadline: float) -> Identity | None:
        """Return who holds a token; None when it is forged, expired or ended."""
        try:
            said = self._tokens.verify(token, self._now_us())
        except TokenRefused:
            return None
        # Who wrote the token has checked its names.
        name = UserName(said.account, said.user)
        user = self._users.young(name)
        if user is None:
            user = await self.by_name(*name, deadline=deadline)
        if user is None or user.generation != said.generation:
            return None
        return user.identity

    # --- what an operator changes -------------------------------------------------------------------------------------

    async def add(
        self,
        name: UserName,
        roles: Collection[str] = (),
        *,
        key: str | None = None,
        s3_key: S3Key | None = None,
        deadline: float,
    ) -> User:
        """Make a user; a key and an S3 key are generated unless they are given.

        Raises UserRefused, UserExists, AccessKeyTaken. When the outcome is unknown, remove the user and add it again.
        """
        check_name("account", name.account)
        check_name("user", name.user)
        pair = _checked(s3_key)
        record = with_roles(self._key_fields(name, _new_key(key)), [check_role(role) for role in roles])
        record = {**record, **access_key_fields(name, *pair, self._sealer)}
        await self._directory.claim(pair.access_key, name, deadline=deadline)
        try:
            await self._directory.create(name, record, deadline=deadline)
        except DirectoryError:
            await self._release_unused(pair.access_key, name, deadline)
            raise
        self._forget(name, pair.access_key)
        return read_user(name, record, self._sealer)

    async def remove(self, name: UserName, *, deadline: float) -> None:
        """Remove a user with its S3 keys and tokens. Raises NoSuchUser."""
        await self._directory.remove(name, deadline=deadline)
        self._forget(name)

    async def list(
        self, account: str | None = None, *, deadline: float
    ) -> AsyncGenerator[User | UserName, None]:
        """Yield all users, or those of one account, by name; one whose secrets do not open as its name alone."""
        async with aclosing(self._directory.names(account, deadline=deadline)) as names:
            async for name in names:
                record = await self._directory.read(name, deadline=deadline)
                if record is not None:
                    try:
                        yield read_user(name, record, self._sealer)
                    except SealBroken:
                        yield name

    async def rotate_key(self, name: UserName, *, key: str | None = None, deadline: float) -> str:
        """Give a user another key, generated unless it is given, and end the tokens of the old one. Raises NoSuchUser."""
        key = _new_key(key)
        fields = self._key_fields(name, key)
        await self._directory.change(name, lambda record: {**record, **fields}, deadline=deadline)
        self._forget(name)
        return key

    async def add_s3_key(self, name: UserName, *, s3_key: S3Key | None = None, deadline: float) -> S3Key:
        """Give a user one more S3 key, generated unless it is given; one that it has gets the new secret.

        Raises UserRefused, NoSuchUser, AccessKeyTaken, TooManyAccessKeys.
        """
        pair = _checked(s3_key)
        fields = access_key_fields(name, *pair, self._sealer)
        if await self._directory.read(name, deadline=deadline) is None:
            raise NoSuchUser(name)
        await self._directory.claim(pair.access_key, name, deadline=deadline)

        def add(record: Attributes) -> Attributes:
            added = {**record, **fields}
            if len(access_keys_of(added)) > ACCESS_KEYS_MAX:
                raise TooManyAccessKeys(name)
            return added

        try:
            await self._directory.change(name, add, deadline=deadline)
        except DirectoryError:
            await self._release_unused(pair.access_key, name, deadline)
            raise
        self._forget(name, pair.access_key)
        return pair

    async def remove_s3_key(self, name: UserName, access_key: str, *, deadline: float) -> None:
        """Take an S3 key from a user, and whatever an interrupted change left of it. Raises NoSuchAccessKey."""
        was_claimed = await self._directory.release(access_key, name, deadline=deadline)
        try:
            await self._directory.change(
                name, lambda record: _without_known(record, name, access_key), deadline=deadline
            )
        except (NoSuchUser, NoSuchAccessKey):
            if not was_claimed:
                raise
        self._forget(name, access_key)

    # --- what a file says ---------------------------------------------------------------------------------------------

    async def seed(self, users: Sequence[UserConfig], *, deadline: float) -> tuple[DirectoryError, ...]:
        """Make every user of a file as the file says, and return what could not be done; the others are as it says then.

        The file's word wins over what was changed since. What is so already is not written again, so tokens stay good from
        one start to the next. An S3 key that the file brought goes when the file names another, even to another user.
        """
        refusals: list[DirectoryError] = []
        for user in users:
            try:
                await self._seed_one(user, deadline)
            except DirectoryError as refused:
                refusals.append(refused)
        return tuple(refusals)

    async def _seed_one(self, user: UserConfig, deadline: float) -> None:
        name = UserName(user.account, user.user)
        if user.s3_access_key:
            await self._claim_for_file(user.s3_access_key, name, deadline)
        edit = self._as_file_says(user)
        record = await self._directory.read(name, deadline=deadline)
        if record is None:
            try:
                await self._directory.create(name, edit({}), deadline=deadline)
            except UserExists:  # another process seeds it at the same moment: see what it made
                record = await self._directory.read(name, deadline=deadline)
                if record is None:
                    raise
        if record is not None and edit(record) is not record:
            before = access_key_from_file(record)
            if before not in ("", user.s3_access_key):
                await self._directory.release(before, name, deadline=deadline)
            await self._directory.change(name, edit, deadline=deadline)
        self._forget(name, user.s3_access_key)

    def _as_file_says(self, user: UserConfig) -> Describe:
        """Return the change of a record to what a file wants: none, the very same record, where it is so already."""
        name = UserName(user.account, user.user)
        of_key = self._key_fields(name, user.key)
        of_s3 = access_key_fields(name, user.s3_access_key, user.s3_secret_key, self._sealer)

        def edit(record: Attributes) -> Attributes:
            try:
                standing: User | None = read_user(name, record, self._sealer)
            except SealBroken:
                standing = None
            wanted = record
            if standing is None or standing.roles != frozenset(user.roles):
                wanted = with_roles(wanted, user.roles)
            if standing is None or standing.key != user.key:
                wanted = {**wanted, **of_key}
            before = access_key_from_file(record)
            if before not in ("", user.s3_access_key):
                wanted = without_access_key(wanted, before)
            if not user.s3_access_key:
                return wanted
            if standing is None or standing.access_keys.get(user.s3_access_key) != user.s3_secret_key:
                wanted = {**wanted, **of_s3}
            return wanted if before == user.s3_access_key else marked_from_file(wanted, user.s3_access_key)

        return edit

    async def _claim_for_file(self, access_key: str, name: UserName, deadline: float) -> None:
        """Claim an S3 key that a file gives to a user. Raises AccessKeyTaken where it is another's by other means."""
        if await self._directory.owner_of(access_key, deadline=deadline) == name:
            return
        try:
            await self._directory.claim(access_key, name, deadline=deadline)
        except AccessKeyTaken as taken:
            owner = taken.owner
            record = await self._directory.read(owner, deadline=deadline)
            if record is not None and access_key in access_keys_of(record):
                if access_key_from_file(record) != access_key:
                    raise
                await self.remove_s3_key(owner, access_key, deadline=deadline)
            else:
                await self._directory.release(access_key, owner, deadline=deadline)
            await self._directory.claim(access_key, name, deadline=deadline)

    # --- look-ups -----------------------------------------------------------------------------------------------------

    async def _look_up(self, name: UserName, deadline: float) -> User | None:
        record = await self._directory.read(name, deadline=deadline)
        if record is None:
            return None
        try:
            user = read_user(name, record, self._sealer)
        except SealBroken as broken:
            # Nobody can show who he is by a secret that nobody knows any more; the operator is told why.
            _LOG.error("user %s is turned away: %s", name, broken)
            return None
        if user.unopened:
            _LOG.error(
                "S3 keys of user %s do not open and are turned away: %s", name, ", ".join(user.unopened)
            )
        return user

    async def _look_up_owner(self, access_key: str, deadline: float) -> UserName | None:
        return await self._directory.owner_of(access_key, deadline=deadline)

    def _forget(self, name: UserName, access_key: str = "") -> None:
        self._users.forget(name)
        self._owners.forget(access_key)

    def _key_fields(self, name: UserName, key: str) -> Attributes:
        return key_fields(name, key, secrets.token_bytes(GENERATION_BYTES), self._sealer)

    async def _release_unused(self, access_key: str, name: UserName, deadline: float) -> None:
        """Give a claim back whose user does not have the key after all."""
        record = await self._directory.read(name, deadline=deadline)
        if record is None or access_key not in access_keys_of(record):
            await self._directory.release(access_key, name, deadline=deadline)


def _checked(s3_key: S3Key | None) -> S3Key:
    """Return the S3 key that is to be added: the given one, or a new one. Raises UserRefused."""
    if s3_key is None:
        access_key = _draw(string.ascii_uppercase + string.digits, _ACCESS_KEY_CHARACTERS)
        return S3Key(access_key, _draw(_LETTERS, _SECRET_CHARACTERS))
    return S3Key(check_access_key(s3_key.access_key), check_key("secret key", s3_key.secret))


def _new_key(key: str | None) -> str:
    """Return the key that is to be set: the given one, or a new one. Raises UserRefused."""
    return _draw(_LETTERS, _KEY_CHARACTERS) if key is None else check_key("key", key)


def _draw(alphabet: str, count: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(count))


def _without_known(record: Attributes, name: UserName, access_key: str) -> Attributes:
    if access_key not in access_keys_of(record):
        raise NoSuchAccessKey(name, access_key)
    return without_access_key(record, access_key)


def _comparable(key: str) -> bytes:
    """Return bytes for any text that a header may have held."""
    return key.encode("utf-8", "surrogatepass")
