"""Paths, metadata, due times, types, listings: tables of the Swift dialect's pure parts."""

import asyncio
import json
from typing import Any, cast
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.request import Request
from proxy.http.target import parse_target
from proxy.store.values import ListedContainer, ListedObject, ListedPrefix, ObjectPage
from proxy.swift_api.descriptions import guess_type, read_delete_at_us
from proxy.swift_api.facts import format_timestamp, last_modified
from proxy.swift_api.listings import (
    Format,
    Wanted,
    choose_format,
    fetch_page,
    parse_wanted,
    write_containers,
    write_objects,
)
from proxy.swift_api.metadata import merge, read_metadata, without_empty
from proxy.swift_api.paths import Resource, parse_reference, parse_resource
from proxy.swift_api.refusals import Refusal
from swiftlike.node_calls import Query

NOW_US = 1_700_000_000_500_000


def headers(**fields: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()}))


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        (b"/v1/a", Resource(b"a")),
        (b"/v1/a/", Resource(b"a")),
        (b"/v1/a/c", Resource(b"a", b"c")),
        (b"/v1/a/c/", Resource(b"a", b"c")),
        (b"/v1/a/c/o", Resource(b"a", b"c", b"o")),
        (b"/v1/a/c//o//", Resource(b"a", b"c", b"/o//")),
        (b"/v1/a/c//", Resource(b"a", b"c", b"/")),
        (b"/v1/a/./..", Resource(b"a", b".", b"..")),
        ("/v1/a/c/ü%\n☃".encode(), Resource(b"a", b"c", "ü%\n☃".encode())),
    ],
)
def test_a_path_names_an_account_a_container_and_an_object(path: bytes, resource: Resource) -> None:
    assert parse_resource(path) == resource


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (b"/v1", 412, "Bad URL"),
        (b"/v1/", 412, "Bad URL"),
        (b"/v1//c", 412, "Bad URL"),
        (b"/v1/a//o", 404, "container"),
        (b"/v1/a/c/\xff", 412, "UTF8"),
        (b"/v1/a/c/x\0y", 412, "NULL"),
        (b"/v1/" + b"a" * 257, 400, "256"),
        (b"/v1/a/" + b"c" * 257, 400, "256"),
        (b"/v1/a/c/" + b"o" * 1025, 400, "1024"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_path_that_names_nothing_is_refused(path: bytes, status: int, text: str) -> None:
    with pytest.raises(Refusal, match=text) as refused:
        parse_resource(path)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("value", "found"), [("c/o", (b"c", b"o")), ("/c/o/p/", (b"c", b"o/p/")), ("c%2F/%25", (b"c", b"/%"))]
)
def test_a_reference_is_container_and_object(value: str, found: tuple[bytes, bytes]) -> None:
    assert parse_reference("Destination", value) == found


@pytest.mark.parametrize("value", ["", "/", "c", "c/", "//o", "%ff/o", "\udcff/o", "c/%00", "c/%", "c/%zz"])
def test_a_reference_that_is_none_is_refused_by_the_name_of_its_header(value: str) -> None:
    with pytest.raises(Refusal, match=r"Destination|UTF8") as refused:
        parse_reference("Destination", value)
    assert refused.value.status == 412


def test_metadata_is_lower_case_and_keeps_its_value() -> None:
    given_ = headers(
        X_Object_Meta_Foo_Bar="Ünïcode %41", x_object_meta_b="", X_Remove_Object_Meta_C="x", Other="y"
    )
    assert read_metadata(given_, "Object") == {"meta:foo-bar": "Ünïcode %41", "meta:b": "", "meta:c": ""}


def test_a_container_adds_up_metadata_and_an_object_replaces_it() -> None:
    changes = {"meta:a": "2", "meta:b": "", "sys:read-acl": ""}
    old = {"meta:a": "1", "meta:b": "1", "meta:c": "1", "sys:read-acl": "x", "type": "t"}
    assert merge(old, changes) == {"meta:a": "2", "meta:c": "1", "type": "t"}
    assert without_empty(changes) == {"meta:a": "2"}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"x-object-meta-": "x"}, "empty"),
        ({"x-object-meta-" + "n" * 129: "x"}, "128"),
        ({"x-object-meta-a": "v" * 257}, "256"),
        ({"x-object-meta-a": "é" * 129}, "256"),
        ({"x-object-meta-a": "\udcff"}, "UTF-8"),
        ({f"x-object-meta-{at}": "v" for at in range(91)}, "90"),
        ({f"x-object-meta-{at}": "v" * 256 for at in range(17)}, "4096"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_metadata_beyond_its_limits_is_refused(fields: dict[str, str], text: str) -> None:
    with pytest.raises(Refusal, match=text) as refused:
        without_empty(read_metadata(CIMultiDictProxy(CIMultiDict(fields)), "Object"))
    assert refused.value.status == 400


def test_metadata_at_its_limits_passes() -> None:
    fields = {f"x-object-meta-{at:02d}": "v" * 43 for at in range(90)} | {
        "x-object-meta-" + "n" * 2: "v" * 43
    }
    del fields["x-object-meta-00"]
    assert len(without_empty(read_metadata(CIMultiDictProxy(CIMultiDict(fields)), "Object"))) == 90


@pytest.mark.parametrize(
    ("fields", "due_s"),
    [
        ({}, 0),
        ({"X_Delete_At": "1700000001"}, 1_700_000_001),
        ({"X_Delete_After": "60"}, 1_700_000_060),
        ({"X_Delete_After": "60", "X_Delete_At": "1700000001"}, 1_700_000_060),
    ],
)
def test_an_object_is_due_when_its_headers_say(fields: dict[str, str], due_s: int) -> None:
    assert read_delete_at_us(headers(**fields), NOW_US) == due_s * 1_000_000


@pytest.mark.parametrize("header", ["X_Delete_At", "X_Delete_After"])
@pytest.mark.parametrize("value", ["", "x", "1.5", "-1", "0", "99999999999", "١"])
def test_a_due_time_that_is_past_or_none_is_refused(header: str, value: str) -> None:
    with pytest.raises(Refusal, match=r"in past|Non-integer|more than 10 digits"):
        read_delete_at_us(headers(**{header: value}), NOW_US)


def test_an_object_is_never_due_later_than_can_be_said() -> None:
    latest_s = 9_999_999_999
    after = latest_s - NOW_US // 1_000_000
    assert read_delete_at_us(headers(X_Delete_After=str(after)), NOW_US) == latest_s * 1_000_000
    assert read_delete_at_us(headers(X_Delete_At=str(latest_s)), NOW_US) == latest_s * 1_000_000
    with pytest.raises(Refusal, match="later than any X-Delete-At of 10 digits"):
        read_delete_at_us(headers(X_Delete_After=str(after + 1)), NOW_US)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        (b"a.txt", "text/plain"),
        (b"a/b.JPG", "image/jpeg"),
        (b"a.tar.gz", "application/gzip"),
        (b"a", "application/octet-stream"),
        (b"data:,x", "text/plain"),
        (b"http://[", "application/octet-stream"),
        ("ü.json".encode(), "application/json"),
    ],
)
def test_a_type_is_guessed_by_the_end_of_the_name(name: bytes, content_type: str) -> None:
    assert guess_type(name) == content_type


@given(st.text(max_size=40))
def test_a_guess_is_made_for_any_name(name: str) -> None:
    assert "/" in guess_type(name.encode("utf-8", "ignore"))


def test_times_are_written_as_swift_does() -> None:
    assert format_timestamp(1_700_000_000_123_456) == "1700000000.12345"
    assert last_modified(1_700_000_000_000_001) == "Tue, 14 Nov 2023 22:13:21 GMT"
    assert last_modified(1_700_000_000_000_000) == "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("query", "accept", "found"),
    [
        ({}, None, Format.PLAIN),
        ({}, "*/*", Format.PLAIN),
        ({}, "application/json", Format.JSON),
        ({}, "text/xml", Format.TEXT_XML),
        ({}, "application/xml;q=0.5, application/json;q=0.4", Format.XML),
        ({}, "text/html, */*;q=0.1", Format.PLAIN),
        ({}, "application/json;q=x, text/plain;q=0.1", Format.PLAIN),
        ({"format": b"JSON"}, "text/plain", Format.JSON),
        ({"format": b"nonsense"}, "image/png", Format.PLAIN),
    ],
    ids=str,
)
def test_a_format_is_chosen_by_query_then_by_accept(
    query: dict[str, bytes], accept: str | None, found: Format
) -> None:
    assert choose_format(query, accept) is found


def test_a_format_that_nobody_writes_is_406() -> None:
    with pytest.raises(Refusal) as refused:
        choose_format({}, "image/png")
    assert refused.value.status == 406


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).map(
    str.encode
)


@given(st.lists(names, max_size=5))
def test_json_holds_every_name_as_it_is(listed: list[bytes]) -> None:
    objects: list[ListedObject | ListedPrefix] = [
        ListedObject(name, 3, "e", "t/x", NOW_US) for name in listed
    ]
    found = json.loads(write_objects(Format.JSON, b"c", [*objects, *map(ListedPrefix, listed)]))
    assert [item["name"].encode() for item in found[: len(listed)]] == listed
    assert [item["subdir"].encode() for item in found[len(listed) :]] == listed
    containers = [ListedContainer(name, 1, 2, 0, NOW_US) for name in listed]
    assert [
        item["name"].encode() for item in json.loads(write_containers(Format.JSON, b"a", containers))
    ] == listed


writable = st.text(
    st.characters(
        codec="utf-8",
        exclude_categories=["Cs"],
        exclude_characters="".join(map(chr, [*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF])),
    ),
    min_size=1,
    max_size=20,
).map(str.encode)


@given(st.lists(writable, max_size=5))
def test_xml_holds_every_name_that_xml_can_hold(listed: list[bytes]) -> None:
    objects: list[ListedObject | ListedPrefix] = [
        ListedObject(name, 3, "e", "t/x", NOW_US) for name in listed
    ]
    root = ElementTree.fromstring(write_objects(Format.XML, b"<c>", [*objects, *map(ListedPrefix, listed)]))
    assert root.attrib["name"] == "<c>"
    assert [(node.text or "").encode() for node in root.findall("object/name")] == listed
    assert [node.attrib["name"].encode() for node in root.findall("subdir")] == listed


paths = st.text("ab/", min_size=1, max_size=6).map(str.encode)


def swift_lists(names: list[bytes], path: bytes) -> list[bytes]:
    """Swift's rule for the parameter `path`."""
    directory = path.rstrip(b"/") + b"/" if path else b""
    return [
        name
        for name in names
        if name.startswith(directory) and name != directory and b"/" not in name[len(directory) : -1]
    ]


@given(
    st.sets(paths, max_size=40),
    st.text("ab/", max_size=3).map(str.encode),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
)
def test_a_path_lists_what_lies_right_in_it_page_by_page_in_both_directions(
    held: set[bytes], path: bytes, limit: int, page_rows: int, reverse: bool
) -> None:
    ordered = sorted(held, reverse=reverse)

    async def fetch(query: Query) -> ObjectPage:
        found = [name for name in ordered if name.startswith(query.prefix)]
        if query.marker:
            found = [name for name in found if (name < query.marker if reverse else name > query.marker)]
        rows = [ListedObject(name, 1, "e", "t/x", NOW_US) for name in found[: min(query.limit, page_rows)]]
        return ObjectPage(rows, rows[-1].name if len(found) > len(rows) else None)

    async def read_all() -> list[bytes]:
        said: list[bytes] = []
        for _ in range(len(held) + 1):
            target = parse_target(
                f"/v1/a/c?path={quote(path)}&limit={limit}&reverse={reverse}&marker={quote(said[-1]) if said else ''}"
            )
            request = Request("GET", target, headers(), cast(Any, None), transaction_id="tx")
            page = [item.name for item in await fetch_page(parse_wanted(request), fetch)]  # type: ignore[union-attr]
            said += page
            if len(page) < limit:
                break
        return said

    assert asyncio.run(read_all()) == swift_lists(ordered, path)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_directory_below_a_path_is_passed_over_however_much_it_holds(reverse: bool) -> None:
    held = [b"d/", b"d/a", b"d/e/", *(b"d/e/%06d" % at for at in range(100_000)), b"d/z"]
    ordered, asked = held[::-1] if reverse else held, list[Query]()

    async def fetch(query: Query) -> ObjectPage:
        asked.append(query)
        found = [name for name in ordered if name.startswith(query.prefix)]
        if query.marker:
            found = [name for name in found if (name < query.marker if reverse else name > query.marker)]
        rows = [ListedObject(name, 1, "e", "t/x", NOW_US) for name in found[: query.limit]]
        return ObjectPage(rows, rows[-1].name if len(found) > len(rows) else None)

    wanted = Wanted(Query(prefix=b"d/", reverse=reverse, limit=10_000), Format.JSON, b"d/")
    names = [item.name for item in asyncio.run(fetch_page(wanted, fetch)) if isinstance(item, ListedObject)]
    assert names == [name for name in ordered if name in (b"d/a", b"d/e/", b"d/z")]
    assert [query.limit for query in asked] == [10_000, 64]


def test_listings_are_written_as_swift_does() -> None:
    objects: list[ListedObject | ListedPrefix] = [
        ListedObject(b"a&b", 3, "abc", "text/plain", 1_700_000_000_123_456),
        ListedPrefix(b"d/"),
    ]
    assert write_objects(Format.PLAIN, b"c", objects) == b"a&b\nd/\n"
    assert json.loads(write_objects(Format.JSON, b"c", objects)) == [
        {
            "name": "a&b",
            "hash": "abc",
            "bytes": 3,
            "content_type": "text/plain",
            "last_modified": "2023-11-14T22:13:20.123456",
        },
        {"subdir": "d/"},
    ]
    assert write_objects(Format.XML, b"c", objects) == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<container name="c"><object><name>a&amp;b</name><hash>abc</hash>'
        b"<bytes>3</bytes><content_type>text/plain</content_type><last_modified>2023-11-14T22:13:20.123456"
        b'</last_modified></object><subdir name="d/"><name>d/</name></subdir></container>'
    )
    containers = [ListedContainer(b"c", 2, 5, 0, 1_700_000_000_000_000)]
    assert write_containers(Format.XML, b"a", containers) == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<account name="a"><container><name>c</name><count>2</count>'
        b"<bytes>5</bytes><last_modified>2023-11-14T22:13:20.000000</last_modified></container></account>"
    )
