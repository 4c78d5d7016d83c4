"""Policies of browsers' forms: what whoever signed one lets others upload.

Owns their grammar, and the judgement of a form's fields. Pure. Every field must be named by a condition, but for those that carry
the policy and its signature, the file, and names that begin with `x-ignore-`; every condition must hold, over the fields as they
are after `${filename}` was filled in. A condition on a field that the form does not have fails.
Source: "POST Policy" of the S3 API reference.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from proxy.s3_api.errors import S3Error
from swiftlike.limits import BODY_BYTES_MAX

EXEMPT: Final = frozenset({"file", "policy", "x-amz-signature", "signature", "awsaccesskeyid"})
"""Fields that no condition needs to name. The bucket is none: a form that leaked would write into all that its signer has."""
_IGNORED: Final = "x-ignore-"
_RANGE: Final = "content-length-range"
_LENGTH_DIGITS_MAX: Final = 16
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_NOT_JSON: Final = {"$": "$", "v": "\\u000b"}
"""Escapes that policies have and JSON has not."""


class Condition(NamedTuple):
    """What a policy asks of one field."""

    is_prefix: bool
    """The field begins with the value, rather than being it."""
    field: str
    """In lower case."""
    value: str

    def holds(self, fields: Mapping[str, str]) -> bool:
        """Whether the fields of a form are so."""
        found = fields.get(self.field)
        if found is None:
            return False
        if not self.is_prefix:
            return found == self.value
        if self.field == "content-type":  # a list of types: each must begin so
            return all(one.strip().startswith(self.value) for one in found.split(","))
        return found.startswith(self.value)

    def __str__(self) -> str:
        """As the policy has it."""
        return json.dumps(["starts-with" if self.is_prefix else "eq", f"${self.field}", self.value])


class Policy(NamedTuple):
    """What may be uploaded, and until when."""

    expires_us: int
    conditions: tuple[Condition, ...]
    least_bytes: int = 0
    most_bytes: int | None = None
    """Bounds on the size of the file."""

    def check(self, fields: Mapping[str, str], now_us: int) -> None:
        """Judge a form, its file apart. Raises S3Error."""
        if now_us >= self.expires_us:
            raise _denied("Policy expired.")
        for condition in self.conditions:
            if not condition.holds(fields):
                raise _denied(f"Policy Condition failed: {condition}")
        named = {condition.field for condition in self.conditions}
        extra = sorted(
            name for name in fields if name not in EXEMPT | named and not name.startswith(_IGNORED)
        )
        if extra:
            raise _denied(f"Extra input fields: {', '.join(extra)[:200]}")

    def check_least(self, size: int) -> None:
        """Judge the size of a file that has come. Raises S3Error."""
        if size < self.least_bytes:
            facts = {"ProposedSize": str(size), "MinSizeAllowed": str(self.least_bytes)}
            raise S3Error("EntityTooSmall", facts=facts)

    def check_most(self, size: int) -> None:
        """Judge how much of a file has come. Raises S3Error."""
        most = BODY_BYTES_MAX if self.most_bytes is None else min(self.most_bytes, BODY_BYTES_MAX)
        if size > most:
            raise S3Error("EntityTooLarge", facts={"ProposedSize": str(size), "MaxSizeAllowed": str(most)})


def read_policy(text: str) -> Policy:
    """Read a policy as a form carries it, in base64. Raises S3Error."""
    try:
        document = base64.b64decode("".join(text.split()).encode("ascii"), validate=True).decode()
        found = json.loads(_plain_json(document), object_pairs_hook=_unique)
    except (binascii.Error, UnicodeError):
        raise _invalid("it is not base64 of UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise _invalid(str(error) if isinstance(error, ValueError) else "it is too deep") from None
    if not isinstance(found, dict) or set(found) != {"expiration", "conditions"}:
        raise _invalid("it must have expiration and conditions, and nothing else")
    if not isinstance(found["conditions"], list):
        raise _invalid("conditions must be a list")
    policy = Policy(_read_expiration(found["expiration"]), ())
    for item in found["conditions"]:
        policy = _with(policy, item)
    return policy


def _plain_json(document: str) -> str:
    """Return a policy's text without the escapes that JSON has not."""
    return _ESCAPE.sub(lambda found: _NOT_JSON.get(found[1], found[0]), document)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _read_expiration(value: object) -> int:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        if at is None or at.tzinfo is None:
            raise _invalid("expiration must be a time such as 2030-01-31T12:00:00.000Z")
        return int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000
    except (ValueError, OverflowError):
        raise _invalid("expiration must be a time such as 2030-01-31T12:00:00.000Z") from None


def _with(policy: Policy, item: object) -> Policy:
    """Return a policy with one condition more. Raises S3Error."""
    match item:
        case dict() if item:
            if not all(isinstance(value, str) for value in item.values()):
                raise _invalid("the value of a condition must be a text")
            found = tuple(Condition(False, name.lower(), value) for name, value in item.items())
            return policy._replace(conditions=policy.conditions + found)
        case [str(how), least, most] if how.lower() == _RANGE:
            bounds = _read_length(least), _read_length(most)
            kept = policy.most_bytes
            return policy._replace(
                least_bytes=max(policy.least_bytes, bounds[0]),
                most_bytes=bounds[1] if kept is None else min(kept, bounds[1]),
            )
        case [str(how), str(field), str(value)] if how.lower() in ("eq", "starts-with") and field[:1] == "$":
            found = (Condition(how.lower() != "eq", field[1:].lower(), value),)
            return policy._replace(conditions=policy.conditions + found)
        case _:
            raise _invalid(f"{json.dumps(item)[:100]} is no condition")


def _read_length(value: object) -> int:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text.isascii() or not text.isdecimal() or len(text) > _LENGTH_DIGITS_MAX:
        raise _invalid(f"{_RANGE} takes two numbers of bytes")
    return int(text)


def _invalid(why: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {why}")


def _denied(why: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {why}")
