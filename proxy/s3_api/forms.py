"""Forms of browsers (multipart/form-data), read as they come: the fields, then the file, which is never held whole.

Owns their bounds: what comes before the file takes 20 KB at most, in the headers of its parts and its values together. Framing is
the library's; what fields mean is in `posts`. What follows the file is read past, as S3 does, but the form must end as one.
Source: RFC 7578; "POST Object" of the S3 API reference.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import multipart

from proxy.s3_api.errors import S3Error, invalid_argument

FIELDS_BYTES_MAX: Final = 20_000
HEADER_BYTES_MAX: Final = 4096
"""One header line of a part: a file's name and the name of its field."""
BOUNDARY_BYTES_MAX: Final = 70
_FILE: Final = "file"


def read_boundary(content_type: str | None) -> str:
    """Return what stands between the parts of a form. Raises S3Error when a body is no form."""
    kind, options = multipart.parse_options_header(content_type or "")
    boundary = str(options.get("boundary", ""))
    if kind != "multipart/form-data":
        raise S3Error(
            "PreconditionFailed",
            facts={"Condition": "Bucket POST must be of the enclosure-type multipart/form-data"},
        )
    if not boundary.isascii() or not boundary.isprintable() or not 1 <= len(boundary) <= BOUNDARY_BYTES_MAX:
        raise S3Error(
            "MalformedPOSTRequest", "The boundary of the form is missing, or is none that RFC 2046 has."
        )
    return boundary


class Form:
    """One form on its way. Close it (`aclosing`) when leaving; ask for the fields, then for the file."""

    def __init__(self, body: AsyncIterator[bytes], boundary: str) -> None:
        """Take the body as it comes."""
        parser = multipart.PushMultipartParser(boundary, max_header_size=HEADER_BYTES_MAX)
        self._events: Final = _events(body, parser)
        self.file_name = ""
        """What the client calls the file, known once the fields are read."""

    async def read_fields(self) -> dict[str, str]:
        """Return the fields up to the file, their names in lower case. Raises S3Error, BodyError."""
        found: dict[str, str] = {}
        size, name, pieces = 0, "", list[bytes]()
        async for event in self._events:
            if isinstance(event, bytes):
                size += len(event)
                pieces.append(event)
            elif event is None:
                found[name] = _text(name, b"".join(pieces))
            else:
                name, pieces = (event.name or "").lower(), []
                if name == _FILE:
                    self.file_name = event.filename or ""
                    return found
                if name in found:
                    raise invalid_argument("A form has each field once", name, found[name])
                size += sum(len(header) + len(value.encode()) for header, value in event.headerlist)
            if size > FIELDS_BYTES_MAX:
                facts = {"MaxPostPreDataLength": str(FIELDS_BYTES_MAX)}
                raise S3Error("MaxPostPreDataLengthExceededError", facts=facts)
        raise invalid_argument("POST requires exactly one file upload per request.", _FILE, "0")

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the file, once the fields are read; ends when the whole form has come. Raises S3Error, BodyError."""
        is_file = True
        async for event in self._events:
            if isinstance(event, bytes):
                if is_file:
                    yield event
            elif event is None:
                is_file = False
            elif (event.name or "").lower() == _FILE:
                raise S3Error("IncorrectNumberOfFilesInPostRequest")

    async def aclose(self) -> None:
        """Take no more of it."""
        await self._events.aclose()


async def _events(
    body: AsyncIterator[bytes], parser: multipart.PushMultipartParser
) -> AsyncGenerator[Any, None]:
    """Yield what the parser finds: a part that begins, some of its bytes, None where it is over. Raises S3Error, BodyError."""
    try:
        async with aclosing(body) as came:  # type: ignore[type-var]  # what a request's body yields is a generator
            async for raw in came:
                for event in parser.parse(raw):
                    yield event
        parser.close()
    except multipart.ParserLimitReached:
        raise S3Error("MaxPostPreDataLengthExceededError") from None
    except multipart.MultipartError as error:
        raise S3Error(
            "MalformedPOSTRequest", f"The body is no well-formed multipart/form-data: {error}"
        ) from None


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise invalid_argument("The value of a field must be valid UTF-8", name, "") from None


def with_file_name(fields: Mapping[str, str], file_name: str, kept: frozenset[str]) -> dict[str, str]:
    """Return fields in which `${filename}` is what the client calls the file, without its directories, but for `kept`."""
    base = file_name.replace("\\", "/").rpartition("/")[2]
    return {
        name: value if name in kept else value.replace("${filename}", base) for name, value in fields.items()
    }
