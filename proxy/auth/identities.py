"""Identities: who asks, and what that makes him by itself.

Owns the step between a user's account, as `account:user` names it, and the account of the store that it owns. How somebody
showed who he is, a token or a signature, is not known here; neither is what an ACL grants.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from swiftlike.user_config import Role

ACCOUNT_PREFIX: Final = b"AUTH_"
"""What the store's accounts begin with, as everywhere in Swift: account `test` of a user owns `/v1/AUTH_test`."""

# Plain texts: a member of an enumeration is slow to hash, and every request asks.
_ADMIN: Final = str(Role.ADMIN.value)
_RESELLER_ADMIN: Final = str(Role.RESELLER_ADMIN.value)

HIDDEN: Final = b"\0"
"""What the names begin with that no request may reach, whoever asks."""


@lru_cache(1024)
def account_of(account: str) -> bytes:
    """Return the store's account that users of `account` belong to."""
    return ACCOUNT_PREFIX + account.encode()


class Identity(NamedTuple):
    """Who asks."""

    user: str = ""
    """Name in its account; empty for anonymous."""
    account: str = ""
    """The account that the user belongs to, without `AUTH_`; empty for anonymous."""
    roles: frozenset[str] = frozenset()

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody said who asks."""
        return not self.user

    @property
    def is_reseller_admin(self) -> bool:
        """Whether every account is its own."""
        return _RESELLER_ADMIN in self.roles

    @property
    def name(self) -> str:
        """What logs call it: `account:user`, or `anonymous`."""
        return f"{self.account}:{self.user}" if self.user else "anonymous"

    def is_admin_of(self, account: bytes) -> bool:
        """Whether an account of the store is its own, or every account is."""
        if not self.user:
            return False
        roles = self.roles
        return _RESELLER_ADMIN in roles or (_ADMIN in roles and account_of(self.account) == account)


ANONYMOUS: Final = Identity()
