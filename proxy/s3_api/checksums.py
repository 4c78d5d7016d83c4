"""Checksums that clients send along and ask back: CRC32, CRC32C, CRC64NVME, SHA1 and SHA256.

Owns their names, their forms in headers, how each is computed as bytes come, and how those of parts become the one of an
object. What a client does not promise is computed all the same, as CRC64NVME, so that every object has one that its readers
can verify.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

from awscrt import checksums as crt

from proxy.http.digests import read_base64
from proxy.s3_api.errors import S3Error, invalid_argument
from proxy.store.values import Attributes
from swiftlike.rpc.transport import Body


class Algorithm(Enum):
    """What a body is summed up by."""

    CRC32 = "CRC32"
    CRC32C = "CRC32C"
    CRC64NVME = "CRC64NVME"
    SHA1 = "SHA1"
    SHA256 = "SHA256"

    @property
    def header(self) -> str:
        """The header, or trailer, that carries one, in lower case."""
        return f"x-amz-checksum-{self.value.lower()}"

    @property
    def attribute(self) -> str:
        """The attribute in which it is kept, in base64."""
        return f"sys:checksum-{self.value.lower()}"

    @property
    def digest_bytes(self) -> int:
        """How long one is."""
        return _DIGEST_BYTES[self]


_DIGEST_BYTES: Final = {
    Algorithm.CRC32: 4,
    Algorithm.CRC32C: 4,
    Algorithm.CRC64NVME: 8,
    Algorithm.SHA1: 20,
    Algorithm.SHA256: 32,
}
UNASKED: Final = Algorithm.CRC64NVME
"""What is computed where no client asked for another."""
_BY_HEADER: Final = {algorithm.header: algorithm for algorithm in Algorithm}
_OF_TYPE: Final = "x-amz-checksum-type"
_OF_ALGORITHM: Final = "x-amz-checksum-algorithm"
_MODES: Final = frozenset({_OF_TYPE, "x-amz-checksum-mode", _OF_ALGORITHM})


class Coverage(Enum):
    """What the checksum of an object covers."""

    FULL_OBJECT = "FULL_OBJECT"
    """Its bytes, as if it had come in one piece."""
    COMPOSITE = "COMPOSITE"
    """The checksums of its parts, one after the other; how many they are follows a dash."""


COVERAGE: Final = "sys:checksum-type"
"""The attribute that tells what the checksum covers; none: the full object."""
_COVERAGES: Final[Mapping[Algorithm, tuple[Coverage, ...]]] = {
    Algorithm.CRC32: (Coverage.COMPOSITE, Coverage.FULL_OBJECT),
    Algorithm.CRC32C: (Coverage.COMPOSITE, Coverage.FULL_OBJECT),
    Algorithm.CRC64NVME: (Coverage.FULL_OBJECT,),
    Algorithm.SHA1: (Coverage.COMPOSITE,),
    Algorithm.SHA256: (Coverage.COMPOSITE,),
}
"""Of an upload in parts, the default first."""


class Summing:
    """One checksum under way."""

    __slots__ = ("_crc", "_hash", "_update", "algorithm")

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self._crc = 0
        self._hash: Any = None
        self._update: Callable[[Body], None] = self._update_crc
        if algorithm in (Algorithm.SHA1, Algorithm.SHA256):
            self._hash = hashlib.new(algorithm.value.lower(), usedforsecurity=False)
            self._update = self._hash.update

    def update(self, chunk: Body) -> None:
        """Take more of the body."""
        self._update(chunk)

    def _update_crc(self, chunk: Body) -> None:
        self._crc = _CRCS[self.algorithm](chunk, self._crc)

    def text(self) -> str:
        """Return it in base64, as headers carry it."""
        digest = (
            self._crc.to_bytes(self.algorithm.digest_bytes, "big")
            if self._hash is None
            else self._hash.digest()
        )
        return base64.b64encode(digest).decode("ascii")


_CRCS: Final[Mapping[Algorithm, Callable[[Body, int], int]]] = {
    Algorithm.CRC32: crt.crc32,
    Algorithm.CRC32C: crt.crc32c,
    Algorithm.CRC64NVME: crt.crc64nvme,
}


class Promise(NamedTuple):
    """What a request says of its body's checksum."""

    algorithm: Algorithm
    text: str | None = None
    """In base64, where a header says it."""
    is_trailer: bool = False
    """It follows the body."""


def check_known(headers: Mapping[str, str]) -> None:
    """Refuse a checksum that cannot be verified. Raises S3Error."""
    for name in headers:
        lower = name.lower()
        if lower.startswith("x-amz-checksum-") and lower not in _BY_HEADER and lower not in _MODES:
            raise S3Error("InvalidRequest", f"The algorithm of the header {lower[:60]} is not supported.")


def read_promise(headers: Mapping[str, str], trailers: tuple[str, ...]) -> Promise | None:
    """Return what a request promises of its body; None: nothing. Raises S3Error."""
    check_known(headers)
    found = [algorithm for algorithm in Algorithm if algorithm.header in headers]
    trailing = [_BY_HEADER[name] for name in trailers if name in _BY_HEADER]
    if len(found) + len(trailing) > 1:
        raise S3Error(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    named = headers.get("x-amz-sdk-checksum-algorithm")
    wanted = None if named is None else read_algorithm("x-amz-sdk-checksum-algorithm", named)
    if headers.get(_OF_TYPE, "FULL_OBJECT") != "FULL_OBJECT":
        raise S3Error("InvalidRequest", "The checksum of an object that is put whole is of type FULL_OBJECT.")
    if not found and not trailing:
        if wanted is not None:
            raise S3Error(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
                "were found.",
            )
        return None
    algorithm = (found or trailing)[0]
    if wanted not in (None, algorithm):
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if not found:
        return Promise(algorithm, is_trailer=True)
    return Promise(algorithm, check_form(algorithm, headers[algorithm.header]))


def read_algorithm(header: str, value: str) -> Algorithm:
    """Read a header that names one. Raises S3Error."""
    try:
        return Algorithm(value.strip().upper())
    except ValueError:
        raise invalid_argument(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
            "[CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
            header,
            value,
        ) from None


def check_form(algorithm: Algorithm, value: str) -> str:
    """Return a checksum that is well-formed. Raises S3Error."""
    digest = read_base64(value)
    if digest is None or len(digest) != algorithm.digest_bytes:
        raise S3Error("InvalidRequest", f"Value for {algorithm.header} header is invalid.")
    return base64.b64encode(digest).decode("ascii")


def read_trailers(value: str | None) -> tuple[str, ...]:
    """Read `x-amz-trailer`, which announces what follows a body. Raises S3Error."""
    names = tuple(name.strip().lower() for name in (value or "").split(",") if name.strip())
    if any(name not in _BY_HEADER for name in names):
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    return names


def kept(attributes: Attributes) -> list[tuple[Algorithm, str]]:
    """Return the checksums that an object is kept with."""
    return [
        (algorithm, attributes[algorithm.attribute])
        for algorithm in Algorithm
        if algorithm.attribute in attributes
    ]


def coverage_of(attributes: Attributes) -> str:
    """Return what the checksum of an object covers."""
    return attributes.get(COVERAGE, Coverage.FULL_OBJECT.value)


class PartChecksums(NamedTuple):
    """How the parts of an upload, and the object that they become, are summed up."""

    algorithm: Algorithm
    coverage: Coverage
    is_asked: bool
    """The upload was begun with it: parts that bring another are refused."""


def read_part_checksums(headers: Mapping[str, str]) -> PartChecksums:
    """Return how an upload that is begun is to be summed up. Raises S3Error."""
    named, covered = headers.get(_OF_ALGORITHM), headers.get(_OF_TYPE)
    if named is None:
        if covered is not None:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )
        return PartChecksums(UNASKED, Coverage.FULL_OBJECT, False)
    algorithm = read_algorithm(_OF_ALGORITHM, named)
    allowed = _COVERAGES[algorithm]
    if covered is None:
        return PartChecksums(algorithm, allowed[0], True)
    if covered not in Coverage.__members__:
        raise invalid_argument("Value for x-amz-checksum-type header is invalid.", _OF_TYPE, covered)
    if Coverage(covered) not in allowed:
        raise S3Error(
            "InvalidRequest",
            f"The {covered} checksum type cannot be used with the {algorithm.value.lower()} checksum algorithm.",
        )
    return PartChecksums(algorithm, Coverage(covered), True)


def sum_of_parts(how: PartChecksums, parts: Sequence[tuple[str, int]]) -> str:
    """Return the checksum of an object from those of its parts, each in base64 and with its size."""
    digests = [base64.b64decode(text) for text, _ in parts]
    if how.coverage is Coverage.COMPOSITE:
        summing = Summing(how.algorithm)
        summing.update(b"".join(digests))
        return f"{summing.text()}-{len(parts)}"
    combine, crc = _COMBINED[how.algorithm], 0
    for digest, (_, size) in zip(digests, parts, strict=True):
        crc = combine(crc, int.from_bytes(digest, "big"), size)
    return base64.b64encode(crc.to_bytes(how.algorithm.digest_bytes, "big")).decode("ascii")


_COMBINED: Final[Mapping[Algorithm, Callable[[int, int, int], int]]] = {
    Algorithm.CRC32: crt.combine_crc32,
    Algorithm.CRC32C: crt.combine_crc32c,
    Algorithm.CRC64NVME: crt.combine_crc64nvme,
}
