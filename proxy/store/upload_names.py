"""Names of what belongs to multipart uploads, all of it under names that no request reaches.

Owns which hidden container stands beside a bucket, and how uploads and parts are called in it. Pure.

    NUL account / bucket "/" incarnation            the hidden container, of the bucket's policy; gone with that incarnation
        "u" key NUL upload                          an upload's record: what the object will be described by, and its state
        "p" upload "/" number "/" attempt           a part; each attempt at a number is an object of its own
    NUL freeing / shard / "u" upload                a mark: see `marks`
    NUL freeing / shard / "b" incarnation           the same of a whole bucket

It stands in an account of its own, so that what a client's account holds is what its objects are: the parts of an object are
counted once, with it. Names begin with a time, so uploads of one key are listed as they began, and the attempts at one
number as they did. A part that is sent again never takes the place of what an object may name by then.
"""

import re
from typing import Final, NamedTuple
from zlib import crc32

from proxy.store.names import ContainerName, ObjectName
from proxy.store.values import ContainerInfo
from swiftlike.timestamps import Timestamp

FREEING: Final = b"\0freeing"
SHARDS: Final = 16
"""Containers over which marks are spread, so that a thousand deletes a second are no hot listing."""
LAST: Final = b"\xff"
"""Above every byte of a name."""

_UPLOAD_ID: Final = re.compile(r"[0-9a-f]{48}")
_INCARNATION: Final = re.compile(rb"[0-9a-f]{32}")
_PART: Final = re.compile(rb"p([0-9a-f]{48})/[0-9]{5}/")


class UploadName(NamedTuple):
    """One upload."""

    bucket: ContainerName
    incarnation: Timestamp
    """The bucket's: an upload is over with it."""
    policy: int
    key: bytes
    id: str

    @property
    def target(self) -> ObjectName:
        """The object that it is to be."""
        return ObjectName(*self.bucket, self.key)

    @property
    def hidden(self) -> ContainerName:
        """Where its record and parts are."""
        return hidden_beside(self.bucket, self.incarnation)

    @property
    def record(self) -> ObjectName:
        """Its record."""
        return ObjectName(*self.hidden, record_prefix(self.key) + self.id.encode())

    @property
    def parts_prefix(self) -> bytes:
        """What the names of its parts begin with."""
        return b"p%s/" % self.id.encode()

    def part(self, number: int, attempt: str) -> ObjectName:
        """One of its parts."""
        return ObjectName(*self.hidden, self.attempts_prefix(number) + attempt.encode())

    def attempts_prefix(self, number: int) -> bytes:
        """What the names of all attempts at a number begin with."""
        return b"%s%05d/" % (self.parts_prefix, number)

    def parts_after(self, number: int) -> bytes:
        """The marker behind all attempts at a number."""
        return self.attempts_prefix(number) + LAST


def upload_in(bucket: ContainerInfo, key: bytes, upload: str) -> UploadName:
    """Return the name of an upload of a bucket as it stands."""
    return UploadName(bucket.name, bucket.incarnation, bucket.policy, key, upload)


def hidden_beside(bucket: ContainerName, incarnation: Timestamp) -> ContainerName:
    """Return the hidden container of a bucket."""
    return ContainerName(b"\0" + bucket.account, b"%s/%s" % (bucket.container, incarnation.hex().encode()))


def record_prefix(key: bytes) -> bytes:
    """Return what the records of a key's uploads begin with."""
    return b"u" + key + b"\0"


def split_record(name: bytes) -> tuple[bytes, str]:
    """Return the key and the upload of a record's name."""
    key, _, upload = name[1:].rpartition(b"\0")
    return key, upload.decode("ascii")


def split_part(name: bytes) -> int:
    """Return the number of a part's name."""
    return int(name.split(b"/")[1])


def attempted_us(name: bytes) -> int:
    """Return the time that leads an attempt's name."""
    return int(name.rpartition(b"/")[2][:16], 16)


def began_us(upload: str) -> int:
    """Return when an upload began."""
    return int(upload[:16], 16)


def upload_of_part(part: ObjectName, policy: int, key: bytes) -> UploadName | None:
    """Return whose part an object is, by its name; `key`: what the upload is for. None: it is none."""
    bucket, _, incarnation = part.container.rpartition(b"/")
    found = _PART.match(part.name)
    if not part.account.startswith(b"\0") or found is None or _INCARNATION.fullmatch(incarnation) is None:
        return None
    return UploadName(
        ContainerName(part.account[1:], bucket),
        Timestamp(bytes.fromhex(incarnation.decode("ascii"))),
        policy,
        key,
        found[1].decode("ascii"),
    )


def upload_id(now_us: int, random: bytes) -> str:
    """Return an id that tells when, and that nobody guesses. `random`: 16 bytes."""
    return f"{now_us:016x}{random.hex()}"


def is_upload_id(text: str) -> bool:
    """Whether it could be one of ours."""
    return _UPLOAD_ID.fullmatch(text) is not None


def shard_of(mark: bytes) -> ObjectName:
    """Return where a mark is."""
    return ObjectName(FREEING, shard_name(crc32(mark) % SHARDS), mark)


def shard_name(shard: int) -> bytes:
    """Return a container of marks."""
    return b"%02x" % shard
