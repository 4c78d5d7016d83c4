"""What the S3 dialect decides without a socket: documents, names, tokens, grants, metadata."""

import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

import proxy.s3_api
from proxy.auth.decisions import Grant, Group, Permission
from proxy.s3_api.checksums import Algorithm, Coverage, PartChecksums, Summing, sum_of_parts
from proxy.s3_api.descriptions import decode_words, encode_words, read_metadata, without_chunked
from proxy.s3_api.errors import CODES, S3Error
from proxy.s3_api.grants import read_grants, write_grants
from proxy.s3_api.listings import Wanted
from proxy.s3_api.resources import Resource, bucket_of_host, parse_resource
from proxy.s3_api.tokens import TokenRefused, read_token, write_token
from proxy.s3_api.xml import (
    DEPTH_MAX,
    ELEMENTS_MAX,
    Element,
    Written,
    XmlRefused,
    read_document,
    write_document,
    write_element,
)
from proxy.store.buckets import is_bucket_name

# --- documents ----------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_that_xml_can_hold_survives_a_document(text: str) -> None:
    raw = write_document("Root", [Element("Key", text)])
    wanted = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", text)
    assert read_document(raw, "Root").value("Key") == wanted


def test_what_is_written_already_stands_in_its_place() -> None:
    key = Element("Key", "a&b")
    elements: list[Element | Written] = [
        Element("One", "1"),
        Written(write_element(key) * 2),
        Element("Two", (key,)),
    ]
    assert write_document("Root", elements, namespace="").endswith(
        b"<Root><One>1</One><Key>a&amp;b</Key><Key>a&amp;b</Key><Two><Key>a&amp;b</Key></Two></Root>"
    )


@given(st.binary(max_size=12) | st.text(max_size=12).map(lambda text: text.encode("utf-8", "replace")))
def test_a_name_in_a_listing_is_quoted_as_a_url_is(name: bytes) -> None:
    assert Wanted(b"", b"", 1, True).name(name) == quote_from_bytes(name, safe="/-._~*")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<Root>",
        b"<Other/>",
        b"<Root/><Root/>",
        b"\xff\xfe",
        b"<Root>\xff</Root>",
        b"<Root>&nbsp;</Root>",
        b"<Root>\x00</Root>",
        b"<!DOCTYPE Root><Root/>",
        b'<!DOCTYPE Root [<!ENTITY a "b">]><Root>&a;</Root>',
        b'<!DOCTYPE Root SYSTEM "file:///etc/passwd"><Root/>',
        b'<!DOCTYPE r [<!ENTITY % x SYSTEM "http://127.0.0.1/"> %x;]><Root/>',
        b'<?xml version="1.0" encoding="nonsense"?><Root>',
        b"<Root>" * (DEPTH_MAX + 1) + b"</Root>" * (DEPTH_MAX + 1),
        b"<Root>" + b"<a/>" * ELEMENTS_MAX + b"</Root>",
        b"x" * 10_000_000,
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_a_hostile_document_is_refused(document: bytes) -> None:
    with pytest.raises(XmlRefused):
        read_document(document, "Root")


def test_a_bomb_of_entities_is_refused_before_it_is_unpacked() -> None:
    lines = "".join(f'<!ENTITY e{at} "{f"&e{at - 1};" * 10}">' for at in range(1, 12))
    bomb = f'<!DOCTYPE Root [<!ENTITY e0 "ha">{lines}]><Root>&e11;</Root>'
    with pytest.raises(XmlRefused):
        read_document(bomb.encode(), "Root")


def test_namespaces_and_white_space_do_not_matter() -> None:
    raw = b'<?xml version="1.0"?>\n<s:Root xmlns:s="urn:x">\n <s:Key>a</s:Key>\n</s:Root>\n'
    assert read_document(raw, "Root").value("Key") == "a"


def test_what_may_be_there_once_is_refused_twice() -> None:
    with pytest.raises(XmlRefused):
        read_document(b"<Root><Key>a</Key><Key>b</Key></Root>", "Root").value("Key")


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_legal"),
    [
        (b"abc", True), (b"a" * 63, True), (b"1.2-3", True), (b"my.bucket-1", True), (b"300.1.1.1.1", True),
        (b"ab", False), (b"a" * 64, False), (b"", False), (b"Abc", False), (b"a_b", False), (b"-abc", False), (b"abc-", False),
        (b".abc", False), (b"abc.", False), (b"a..b", False), (b"192.168.5.4", False), (b"xn--abc", False), (b"sthree-x", False),
        (b"abc-s3alias", False), (b"abc--ol-s3", False), (b"abc\n", False), (b"\xc3\xa9abc", False), (b"a b", False), (b"\0abc", False),
    ],
)  # fmt: skip
def test_bucket_names(name: bytes, is_legal: bool) -> None:
    assert is_bucket_name(name) is is_legal


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("box.objects.example", "box"),
        ("box.objects.example:8080", "box"),
        ("my.box.Objects.Example", "my.box"),
        ("objects.example", ""),
        ("objects.example:80", ""),
        ("notobjects.example", ""),
        ("127.0.0.1:8080", ""),
        ("[::1]:8080", ""),
        ("", ""),
    ],
)
def test_the_host_names_a_bucket_in_front_of_the_domain(host: str, bucket: str) -> None:
    assert bucket_of_host(host, "objects.example") == bucket
    assert bucket_of_host(host, "") == ""


@pytest.mark.parametrize(
    ("path", "host_bucket", "wanted"),
    [
        (b"/", "", Resource()),
        (b"/box", "", Resource(b"box")),
        (b"/box/", "", Resource(b"box")),
        (b"/box//", "", Resource(b"box", b"/")),
        (b"/box/a/../b", "", Resource(b"box", b"a/../b")),
        (b"/", "box", Resource(b"box")),
        (b"/a/b", "box", Resource(b"box", b"a/b")),
        (b"//a", "box", Resource(b"box", b"/a")),
    ],
)
def test_a_path_names_a_bucket_and_a_key(path: bytes, host_bucket: str, wanted: Resource) -> None:
    assert parse_resource(path, host_bucket) == wanted


# --- tokens -------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=1024))
def test_a_token_says_where_to_go_on(name: bytes) -> None:
    assert read_token(write_token(name)) == name


@given(st.text(max_size=60))
def test_what_was_not_made_here_is_no_token(text: str) -> None:
    with pytest.raises(TokenRefused):
        read_token(text)


# --- grants -------------------------------------------------------------------------------------------------------

GRANTS = st.builds(
    Grant,
    st.one_of(st.sampled_from(Group), st.text(st.characters(codec="utf-8"), min_size=1).map(str.encode)),
    st.sampled_from(Permission),
)


@given(st.lists(GRANTS).map(tuple))
def test_grants_are_read_as_they_were_written(grants: tuple[Grant, ...]) -> None:
    assert read_grants(write_grants(grants)) == grants


# --- metadata -----------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_text_goes_through_headers_as_words_and_back(text: str) -> None:
    words = encode_words(text)
    assert words.isascii()
    assert all(len(word) <= 75 for word in words.split(" ") if words.startswith("=?"))
    assert encode_words(decode_words(words)) == words


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "=?UTF-8?Q?a=20b?=",
        "=?UTF-8?B?YQ==?=",
        "=?UTF-8?B?!?=",
        "=?latin-1?B?YQ==?=",
        "=?UTF-8?B?DQpYLUV2aWw6IDE=?=",
        "=?UTF-8?B?/w==?=",
        "a =?UTF-8?B?w6k=?=",
    ],
)
def test_words_that_are_not_ours_stay_as_they_came(value: str) -> None:
    assert decode_words(value) == value


def test_words_of_ours_are_kept_as_their_text() -> None:
    assert decode_words("=?UTF-8?B?w6k=?=") == "é"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("aws-chunked", ""),
        ("gzip,aws-chunked", "gzip"),
        ("AWS-Chunked, gzip , br", "gzip,br"),
        ("gzip", "gzip"),
        ("", ""),
    ],
)
def test_aws_chunked_is_not_kept(value: str, kept: str) -> None:
    assert without_chunked(value) == kept


def test_metadata_of_one_name_is_joined() -> None:
    headers = CIMultiDictProxy(CIMultiDict([("X-Amz-Meta-A", "1"), ("x-amz-meta-a", "2")]))
    assert read_metadata(headers) == {"meta:a": "1,2"}


def test_metadata_has_at_most_two_kilobytes_of_names_and_values() -> None:
    read_metadata(CIMultiDictProxy(CIMultiDict({"x-amz-meta-ab": "v" * 2046})))
    with pytest.raises(S3Error, match="metadata"):
        read_metadata(CIMultiDictProxy(CIMultiDict({"x-amz-meta-ab": "v" * 2047})))


# --- checksums ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        (Algorithm.CRC32, "cbf43926"),
        (Algorithm.CRC32C, "e3069283"),
        (Algorithm.CRC64NVME, "ae8b14860a799888"),
        (Algorithm.SHA1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
        (Algorithm.SHA256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
    ],
)
def test_the_published_check_values_come_out_however_the_body_is_cut(
    algorithm: Algorithm, digest: str
) -> None:
    for cut in range(9):
        summing = Summing(algorithm)
        summing.update(b"123456789"[:cut])
        summing.update(memoryview(b"123456789")[cut:])
        assert base64.b64decode(summing.text()).hex() == digest


# --- errors -------------------------------------------------------------------------------------------------------


def test_every_code_that_the_dialect_may_tell_is_in_the_table() -> None:
    told = set()
    for path in Path(proxy.s3_api.__file__).parent.glob("*.py"):
        told |= set(re.findall(r'(?:S3Error|SignatureRefused)\(\s*"([A-Za-z0-9]+)"', path.read_text()))
    assert len(told) > 30
    assert told <= set(CODES)


# --- checksums of parts ---------------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    st.sampled_from([Algorithm.CRC32, Algorithm.CRC32C, Algorithm.CRC64NVME]),
)
def test_the_checksum_of_a_full_object_is_that_of_its_parts_combined(
    bodies: list[bytes], algorithm: Algorithm
) -> None:
    def sum_of(body: bytes) -> str:
        summing = Summing(algorithm)
        summing.update(body)
        return summing.text()

    how = PartChecksums(algorithm, Coverage.FULL_OBJECT, True)
    assert sum_of_parts(how, [(sum_of(body), len(body)) for body in bodies]) == sum_of(b"".join(bodies))


def test_a_composite_checksum_is_that_of_the_parts_checksums() -> None:
    sums = [hashlib.sha256(body).digest() for body in (b"one", b"two")]
    expected = base64.b64encode(hashlib.sha256(b"".join(sums)).digest()).decode()
    how = PartChecksums(Algorithm.SHA256, Coverage.COMPOSITE, True)
    told = sum_of_parts(how, [(base64.b64encode(one).decode(), 3) for one in sums])
    assert told == f"{expected}-2"
