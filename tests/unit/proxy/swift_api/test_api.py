"""The Swift API as a client sees it, over HTTP and a store in memory."""

import asyncio
import hashlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from proxy.http.begun import TRIES_MAX
from proxy.store.errors import (
    OutcomeUnknown,
    OutOfSpace,
    StoreError,
    Unavailable,
)
from proxy.store.names import ObjectName
from swiftlike.timestamps import Clock
from tests.unit.proxy.fake_store import FakeStore
from tests.unit.proxy.serving import NOW_US, Serving, serve

A = "/v1/AUTH_test"
C = f"{A}/c"
O = f"{C}/o"  # noqa: E741 (A, C and O are what the API is about)
MD5_HELLO = "5d41402abc4b2a76b9719d911017c592"


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with serve() as running:
        assert (await running.ask("PUT", C)).status == 201
        yield running


# --- root ---------------------------------------------------------------------------------------------------------


async def test_info_tells_limits_and_policies_and_no_feature_that_is_not_there(serving: Serving) -> None:
    answer = await serving.ask("GET", "/info", token="")
    document = json.loads(answer.body)
    assert list(document) == ["swift"]
    assert document["swift"]["max_file_size"] == 5 * 2**30
    assert document["swift"]["policies"][0] == {"name": "gold", "aliases": "gold", "default": True}
    assert (await serving.ask("HEAD", "/info", token="")).headers["content-length"] == str(len(answer.body))


async def test_healthcheck_answers_ok(serving: Serving) -> None:
    assert (await serving.ask("GET", "/healthcheck", token="")).body == b"OK"


async def test_signing_in_gives_a_token_and_where_to_go(serving: Serving) -> None:
    answer = await serving.ask("GET", "/auth/v1.0", token="", X_Auth_User="test:tester", X_Auth_Key="testing")
    assert answer.status == 200
    assert answer.headers["x-auth-token"] == answer.headers["x-storage-token"] == "owner"
    assert answer.headers["x-auth-token-expires"] == "86400"
    assert answer.headers["x-storage-url"] == "http://proxy.example:8080/v1/AUTH_test"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"X_Auth_User": "test:tester"},
        {"X_Auth_User": "test:tester", "X_Auth_Key": "wrong"},
        {"X_Auth_User": "tester", "X_Auth_Key": "testing"},
        {"X_Auth_User": ":", "X_Auth_Key": "testing"},
    ],
    ids=str,
)
async def test_signing_in_without_the_right_key_is_401_with_a_realm(
    serving: Serving, fields: dict[str, str]
) -> None:
    answer = await serving.ask("GET", "/auth/v1.0", b"", "", **fields)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith('Swift realm="')


async def test_every_answer_has_a_transaction_id_under_both_names(serving: Serving) -> None:
    for method, path, token in (
        ("GET", "/nothing", ""),
        ("GET", A, ""),
        ("GET", A, "forged"),
        ("PUT", C, "owner"),
        ("PATCH", C, "owner"),
    ):
        answer = await serving.ask(method, path, token=token)
        assert answer.headers["x-trans-id"].startswith("tx")
        assert answer.headers["x-trans-id"] == answer.headers["x-openstack-request-id"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/info", "GET, HEAD, OPTIONS"),
        (A, "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        (C, "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        (O, "COPY, DELETE, GET, HEAD, OPTIONS, POST, PUT"),
    ],
)
async def test_options_and_405_say_what_is_allowed(serving: Serving, path: str, allowed: str) -> None:
    options = await serving.ask("OPTIONS", path, token="")
    assert (options.status, options.headers["allow"]) == (200, allowed)
    refused = await serving.ask("PATCH", path)
    assert (refused.status, refused.headers["allow"]) == (405, allowed)


# --- accounts -----------------------------------------------------------------------------------------------------


async def test_an_account_that_nobody_wrote_is_there_and_empty() -> None:
    async with serve() as serving:
        head = await serving.ask("HEAD", A)
        assert head.status == 204
        assert head.headers["x-account-container-count"] == "0"
        listing = await serving.ask("GET", A)
        assert (listing.status, listing.headers["content-type"]) == (204, "text/plain; charset=utf-8")
        assert (await serving.ask("GET", f"{A}?format=json")).body == b"[]"


async def test_an_account_counts_what_it_holds_by_policy_too(serving: Serving) -> None:
    await serving.ask("PUT", f"{A}/s", X_Storage_Policy="SILVER")
    await serving.ask("PUT", O, b"hello")
    await serving.ask("PUT", f"{A}/s/o", b"hi")
    headers = (await serving.ask("HEAD", A)).headers
    assert headers["x-account-container-count"] == "2"
    assert headers["x-account-object-count"] == "2"
    assert headers["x-account-bytes-used"] == "7"
    assert headers["x-account-storage-policy-silver-bytes-used"] == "2"
    assert headers["x-account-storage-policy-gold-object-count"] == "1"
    listing = json.loads((await serving.ask("GET", f"{A}?format=json")).body)
    assert [(row["name"], row["count"], row["bytes"]) for row in listing] == [("c", 1, 5), ("s", 1, 2)]


async def test_metadata_of_an_account_adds_up(serving: Serving) -> None:
    assert (await serving.ask("POST", A, X_Account_Meta_One="1", X_Account_Meta_Two="2")).status == 204
    assert (await serving.ask("POST", A, X_Account_Meta_Two="", X_Account_Meta_Three="3")).status == 204
    assert (await serving.ask("POST", A, X_Remove_Account_Meta_Three="x")).status == 204
    headers = (await serving.ask("HEAD", A)).headers
    assert headers["x-account-meta-one"] == "1"
    assert not {"x-account-meta-two", "x-account-meta-three"} & set(headers)


async def test_only_a_reseller_admin_makes_and_deletes_accounts(serving: Serving) -> None:
    assert (await serving.ask("PUT", f"{A}x")).status == 403
    assert (await serving.ask("PUT", f"{A}x", token="reseller")).status == 201
    assert (await serving.ask("PUT", f"{A}x", token="reseller")).status == 202
    assert (await serving.ask("DELETE", f"{A}x")).status == 403
    assert (await serving.ask("DELETE", f"{A}x", token="reseller")).status == 204
    assert (await serving.ask("GET", f"{A}x", token="reseller")).status == 410
    assert (await serving.ask("PUT", f"{A}x/c", token="reseller")).status == 404


# --- containers ---------------------------------------------------------------------------------------------------


async def test_a_container_is_created_once_and_described_again(serving: Serving) -> None:
    again = await serving.ask("PUT", C, X_Container_Meta_A="1")
    assert again.status == 202
    assert (await serving.ask("POST", C, X_Container_Meta_B="ü")).status == 204
    head = await serving.ask("HEAD", C)
    assert (head.status, head.headers["content-length"]) == (204, "0")
    assert head.headers["content-type"] == "text/plain; charset=utf-8"
    assert (head.headers["x-container-meta-a"], head.headers["x-container-meta-b"]) == ("1", "ü")
    assert head.headers["x-storage-policy"] == "gold"
    assert (head.headers["x-container-object-count"], head.headers["x-container-bytes-used"]) == ("0", "0")


async def test_a_container_with_objects_is_not_deleted(serving: Serving) -> None:
    await serving.ask("PUT", O, b"hello")
    assert (await serving.ask("DELETE", C)).status == 409
    assert (await serving.ask("DELETE", O)).status == 204
    assert (await serving.ask("DELETE", C)).status == 204
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert (await serving.ask(method, C)).status == 404


async def test_a_policy_is_for_ever(serving: Serving) -> None:
    assert (await serving.ask("PUT", C, X_Storage_Policy="silver")).status == 409
    assert (await serving.ask("PUT", C, X_Storage_Policy="gold")).status == 202
    assert (await serving.ask("PUT", f"{A}/new", X_Storage_Policy="bronze")).status == 400


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "//",
        "/a",
        "a/",
        ".",
        "..",
        "./..",
        "☃",
        "😀/x",
        "%",
        "%41",
        "a\nb\t\x01\x7f",
        "?x=1",
        "#",
        "+",
        "a;b=c&d",
    ],
)
async def test_any_name_round_trips(serving: Serving, name: str) -> None:
    path = f"{C}/{quote(name, safe='')}"
    assert (await serving.ask("PUT", path, b"hello")).status == 201
    assert (await serving.ask("GET", path)).body == b"hello"
    assert ObjectName(b"AUTH_test", b"c", name.encode()) in serving.store.bodies
    listing = json.loads((await serving.ask("GET", f"{C}?format=json")).body)
    assert [row["name"] for row in listing] == [name]
    assert (await serving.ask("GET", C)).body == f"{name}\n".encode()
    assert (await serving.ask("DELETE", path)).status == 204


async def put_names(serving: Serving, *names: str) -> None:
    for name in names:
        assert (await serving.ask("PUT", f"{C}/{name}", b"x")).status == 201


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", "a b/ b/1 b/2 b/c/d c"),
        ("limit=2", "a b/"),
        ("limit=0", ""),
        ("limit=x", "a b/ b/1 b/2 b/c/d c"),
        ("marker=b/1", "b/2 b/c/d c"),
        ("marker=b/1&end_marker=c", "b/2 b/c/d"),
        ("prefix=b/", "b/ b/1 b/2 b/c/d"),
        ("delimiter=/", "a b/ c"),
        ("prefix=b/&delimiter=/", "b/ b/1 b/2 b/c/"),
        ("path=b", "b/1 b/2"),
        ("path=b/", "b/1 b/2"),
        ("path=", "a b/ c"),
        ("path=&limit=2", "a b/"),
        ("path=&reverse=on", "c b/ a"),
        ("path=&marker=b/1", "c"),
        ("path=/", ""),
        ("path=b&limit=1", "b/1"),
        ("path=b&prefix=x&delimiter=y", "b/1 b/2"),
        ("path=b/c", "b/c/d"),
        ("reverse=true", "c b/c/d b/2 b/1 b/ a"),
        ("reverse=on&marker=b/c/d&end_marker=a", "b/2 b/1 b/"),
        ("reverse=0&limit=1", "a"),
    ],
)
@pytest.mark.parametrize("page_items", [1, 10_000])
async def test_a_listing_holds_what_its_parameters_ask_for(
    serving: Serving, query: str, names: str, page_items: int
) -> None:
    await put_names(serving, "c", "b/2", "b/1", "b/", "a", "b/c/d")
    serving.store.page_items = page_items
    answer = await serving.ask("GET", f"{C}?{query}")
    assert answer.body.decode().split() == names.split()
    assert answer.status == (200 if names else 204)
    assert answer.headers["x-container-object-count"] == "6"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=10001", 412),
        ("limit=99999999999999999999", 412),
        ("marker=%ff", 400),
        ("prefix=%00", 400),
        ("a=%", 400),
    ],
)
async def test_a_listing_with_bad_parameters_is_refused(serving: Serving, query: str, status: int) -> None:
    assert (await serving.ask("GET", f"{C}?{query}")).status == status


async def test_a_listing_has_the_type_of_its_format(serving: Serving) -> None:
    for query, accept, content_type in (
        ("", "*/*", "text/plain; charset=utf-8"),
        ("?format=json", "*/*", "application/json; charset=utf-8"),
        ("?format=xml", "*/*", "application/xml; charset=utf-8"),
        ("", "application/xml", "application/xml; charset=utf-8"),
        ("", "text/xml", "text/xml; charset=utf-8"),
    ):
        for method in ("GET", "HEAD"):
            answer = await serving.ask(method, f"{C}{query}", Accept=accept)
            assert answer.headers["content-type"] == content_type
    assert (await serving.ask("GET", C, Accept="image/png")).status == 406


# --- access -------------------------------------------------------------------------------------------------------


async def test_without_a_token_it_is_401_and_with_another_users_403(serving: Serving) -> None:
    await serving.ask("PUT", O, b"hello")
    for path in (A, C, O, f"{A}/absent", f"{A}/absent/o"):
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            nobody = await serving.ask(method, path, token="")
            assert nobody.status == 401
            assert nobody.headers["www-authenticate"] == 'Swift realm="AUTH_test"'
            assert (await serving.ask(method, path, token="forged")).status == 401
            assert (await serving.ask(method, path, token="other")).status == 403
            assert (await serving.ask(method, path, token="plain")).status == 403
    assert serving.store.bodies


@pytest.mark.parametrize(
    ("acl", "token", "reads", "lists"),
    [
        (".r:*", "", 200, 401),
        (".r:*,.rlistings", "", 200, 200),
        (".r:*", "other", 200, 403),
        ("else:guest", "other", 200, 200),
        ("else", "other", 200, 200),
        ("*:guest", "other", 200, 200),
        ("else:other", "other", 403, 403),
        ("test:reader", "plain", 200, 200),
        (".r:example.org", "", 401, 401),
    ],
)
async def test_a_read_acl_opens_a_container(
    serving: Serving, acl: str, token: str, reads: int, lists: int
) -> None:
    await serving.ask("PUT", O, b"hello")
    assert (await serving.ask("POST", C, X_Container_Read=acl)).status == 204
    assert (await serving.ask("GET", O, token=token)).status == reads
    assert (await serving.ask("GET", C, token=token)).status == lists
    assert (await serving.ask("PUT", O, b"x", token=token)).status in (401, 403)


async def test_a_referrer_is_let_in_by_its_page(serving: Serving) -> None:
    await serving.ask("PUT", O, b"hello")
    await serving.ask("POST", C, X_Container_Read=".r:.example.org")
    assert (await serving.ask("GET", O, token="", Referer="http://www.example.org/x")).status == 200
    assert (await serving.ask("GET", O, token="", Referer="http://www.example.com/x")).status == 401


async def test_a_write_acl_lets_write_and_delete_but_not_read(serving: Serving) -> None:
    assert (await serving.ask("POST", C, X_Container_Write="else:guest")).status == 204
    assert (await serving.ask("PUT", O, b"hello", token="other")).status == 201
    assert (await serving.ask("POST", O, token="other")).status == 202
    assert (await serving.ask("GET", O, token="other")).status == 403
    assert (await serving.ask("DELETE", O, token="other")).status == 204
    assert (await serving.ask("DELETE", C, token="other")).status == 403


async def test_acls_are_shown_to_the_owner_and_can_be_removed(serving: Serving) -> None:
    await serving.ask("POST", C, X_Container_Read="else:guest , .r:*", X_Container_Write="else")
    owner = (await serving.ask("HEAD", C)).headers
    assert (owner["x-container-read"], owner["x-container-write"]) == ("else:guest,.r:*", "else")
    assert "x-container-read" not in (await serving.ask("HEAD", C, token="other")).headers
    await serving.ask("POST", C, X_Remove_Container_Read="x", X_Container_Write="")
    assert not {"x-container-read", "x-container-write"} & set((await serving.ask("HEAD", C)).headers)


async def test_an_acl_that_is_none_is_refused(serving: Serving) -> None:
    assert (await serving.ask("POST", C, X_Container_Read=".x:y")).status == 400
    refused = await serving.ask("POST", C, X_Container_Write=".r:*")
    assert (refused.status, b"cannot stand in a write ACL" in refused.body) == (400, True)


# --- objects ------------------------------------------------------------------------------------------------------


async def test_an_object_comes_back_with_all_that_was_said_of_it(serving: Serving) -> None:
    put = await serving.ask(
        "PUT",
        O,
        b"hello",
        Content_Type="text/x; charset=ü",
        Content_Encoding="x",
        Content_Disposition="attachment",
        X_Object_Meta_A_b="ü %41",
        X_Delete_At="1700000100",
        Etag=f'"{MD5_HELLO.upper()}"',
        X_Newest="true",
    )
    assert (put.status, put.headers["etag"]) == (201, MD5_HELLO)
    assert put.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:21 GMT"
    get, head = await serving.ask("GET", O, X_Newest="true"), await serving.ask("HEAD", O)
    assert get.body == b"hello"
    for headers in (get.headers, head.headers):
        assert headers["content-type"] == "text/x; charset=ü"
        assert headers["content-encoding"] == "x"
        assert headers["content-disposition"] == "attachment"
        assert headers["x-object-meta-a-b"] == "ü %41"
        assert headers["x-delete-at"] == "1700000100"
        assert headers["etag"] == MD5_HELLO
        assert headers["content-length"] == "5"
        assert headers["accept-ranges"] == "bytes"
        assert headers["x-timestamp"].startswith("1700000000.")
        assert headers["last-modified"] == put.headers["last-modified"]


async def test_post_replaces_what_was_said_and_keeps_the_body_and_the_type(serving: Serving) -> None:
    await serving.ask(
        "PUT",
        O,
        b"hello",
        Content_Type="text/x",
        Content_Encoding="x",
        X_Object_Meta_A="1",
        X_Delete_After="60",
    )
    assert (await serving.ask("POST", O, X_Object_Meta_B="2")).status == 202
    get = await serving.ask("GET", O)
    assert get.body == b"hello"
    assert (get.headers["content-type"], get.headers["etag"]) == ("text/x", MD5_HELLO)
    assert get.headers["x-object-meta-b"] == "2"
    assert not {"x-object-meta-a", "content-encoding", "x-delete-at"} & set(get.headers)
    assert (await serving.ask("POST", O, Content_Type="text/y")).status == 202
    assert (await serving.ask("HEAD", O)).headers["content-type"] == "text/y"
    assert (await serving.ask("POST", f"{C}/absent")).status == 404


async def test_a_promised_etag_that_is_not_the_bodys_is_422_and_nothing_is_stored(serving: Serving) -> None:
    assert (await serving.ask("PUT", O, b"hello", Etag="0" * 32)).status == 422
    assert (await serving.ask("GET", O)).status == 404


@pytest.mark.parametrize("body", [b"hello", b""])
async def test_a_promised_content_md5_is_held_against_the_body_before_it_is_stored(
    serving: Serving, body: bytes
) -> None:
    def promise(raw: bytes) -> str:
        return b64encode(hashlib.md5(raw).digest()).decode()

    assert (await serving.ask("PUT", O, body, Content_MD5=promise(b"other"))).status == 422
    for malformed in ("nonsense", "", "AAAA", hashlib.md5(body).hexdigest()):
        assert (await serving.ask("PUT", O, body, Content_MD5=malformed)).status == 400
    assert not serving.store.bodies
    assert (await serving.ask("PUT", O, body, Content_MD5=promise(body))).status == 201
    chunked = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    headers = {"Transfer_Encoding": "chunked", "Content_MD5": promise(b"other")}
    assert (await serving.ask("PUT", f"{O}2", chunked + b"0\r\n\r\n", **headers)).status == 422
    assert list(serving.store.bodies.values()) == [body]


async def test_a_type_is_guessed_when_none_is_given_or_when_asked(serving: Serving) -> None:
    await serving.ask("PUT", f"{C}/a.html", b"x")
    await serving.ask("PUT", f"{C}/b.html", b"x", Content_Type="text/x", X_Detect_Content_Type="true")
    await serving.ask("PUT", f"{C}/c.html", b"x", Content_Type="text/x")
    found = [(await serving.ask("HEAD", f"{C}/{name}.html")).headers["content-type"] for name in "abc"]
    assert found == ["text/html", "text/html", "text/x"]


async def test_headers_that_no_entry_has_room_for_are_refused(serving: Serving) -> None:
    long = dict.fromkeys(("Cache_Control", "Content_Language", "Expires", "Content_Encoding"), "x" * 8192)
    assert (await serving.ask("PUT", O, b"hello", "owner", **long)).status == 201
    more = long | {"Content_Disposition": "x" * 8192, "X_Robots_Tag": "x" * 8192, "X_Object_Meta_A": "1"}
    assert (await serving.ask("PUT", O, b"hello", "owner", **more)).status == 400
    assert (await serving.ask("PUT", O, b"hello", Expires="x" * 8193)).status == 400


async def test_a_put_without_a_length_is_411(serving: Serving) -> None:
    async with serving.client() as client:
        await client.send(f"PUT {O} HTTP/1.1\r\nHost: h\r\nX-Auth-Token: owner\r\n\r\n".encode())
        assert (await client.answer()).status == 411


async def test_a_put_larger_than_the_limit_is_413_before_anything_is_sent(serving: Serving) -> None:
    async with serving.client() as client:
        await client.send(
            f"PUT {O} HTTP/1.1\r\nHost: h\r\nX-Auth-Token: owner\r\nContent-Length: {5 * 2**30 + 1}\r\n\r\n".encode()
        )
        assert (await client.answer()).status == 413


async def test_what_clients_ask_before_they_delete_is_answered_by_what_stands_there(serving: Serving) -> None:
    await serving.ask("PUT", O, b"hello")
    assert (await serving.ask("HEAD", f"{O}?symlink=get")).headers["content-length"] == "5"
    assert (await serving.ask("GET", f"{C}?versions=true")).body == b"o\n"


async def test_what_is_due_is_not_there() -> None:
    time_us = [NOW_US]
    store = FakeStore(Clock(lambda: time_us[0], 1))
    async with serve(store=store) as serving:
        await serving.ask("PUT", C)
        await serving.ask("PUT", O, b"hello", X_Delete_After="10")
        assert (await serving.ask("GET", O)).status == 200
        time_us[0] += 10_000_000
        for method in ("GET", "HEAD", "DELETE", "POST"):
            assert (await serving.ask(method, O)).status == 404
        assert (await serving.ask("GET", C)).status == 204


@pytest.mark.parametrize("inline_bytes", [0, 2**20])
@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=1-2", 206, "bytes 1-2/5", b"el"),
        ("bytes=-2", 206, "bytes 3-4/5", b"lo"),
        ("bytes=3-99", 206, "bytes 3-4/5", b"lo"),
        ("bytes=x", 200, None, b"hello"),
        ("bytes=5-", 416, "bytes */5", None),
    ],
)
async def test_ranges(
    inline_bytes: int, asked: str, status: int, content_range: str | None, body: bytes | None
) -> None:
    store = FakeStore(Clock(lambda: NOW_US, 1), inline_bytes)
    async with serve(store=store) as serving:
        await serving.ask("PUT", C)
        await serving.ask("PUT", O, b"hello", X_Object_Meta_A="1")
        answer = await serving.ask("GET", O, Range=asked)
        assert (answer.status, answer.headers.get("content-range")) == (status, content_range)
        assert answer.headers["x-object-meta-a"] == "1", "the object's headers are there, at 416 too"
        assert answer.headers["etag"] == MD5_HELLO
        if body is not None:
            assert answer.body == body


@pytest.mark.parametrize("asked", ["bytes=1-2", "bytes=0-0,4-", "bytes=5-"])
async def test_a_head_tells_of_the_whole_object_whatever_range_it_names(serving: Serving, asked: str) -> None:
    await serving.ask("PUT", O, b"hello", Content_Type="text/x")
    head = await serving.ask("HEAD", O, Range=asked)
    assert (head.status, head.headers["content-length"]) == (200, "5")
    assert head.headers["content-type"] == "text/x"
    assert "content-range" not in head.headers


@pytest.mark.parametrize("inline_bytes", [0, 2**20])
async def test_several_ranges_come_as_one_multipart_answer(inline_bytes: int) -> None:
    store = FakeStore(Clock(lambda: NOW_US, 1), inline_bytes)
    async with serve(store=store) as serving:
        await serving.ask("PUT", C)
        await serving.ask("PUT", O, b"hello", Content_Type="text/x")
        answer = await serving.ask("GET", O, Range="bytes=0-0,4-")
        assert answer.status == 206
        kind, _, boundary = answer.headers["content-type"].partition(";boundary=")
        assert kind == "multipart/byteranges"
        parts = answer.body.split(f"--{boundary}".encode())
        assert parts[0] == b""
        assert parts[1] == b"\r\nContent-Type: text/x\r\nContent-Range: bytes 0-0/5\r\n\r\nh\r\n"
        assert parts[2] == b"\r\nContent-Type: text/x\r\nContent-Range: bytes 4-4/5\r\n\r\no\r\n"
        assert parts[3] == b"--\r\n"


@pytest.mark.parametrize("asked", [None, "bytes=1-2", "bytes=0-0,4-"])
async def test_a_body_that_is_gone_before_its_first_byte_is_looked_up_again(asked: str | None) -> None:
    store = FakeStore(Clock(lambda: NOW_US, 1), inline_bytes=0)
    ranged = {} if asked is None else {"Range": asked}
    async with serve(store=store) as serving:
        await serving.ask("PUT", C)
        await serving.ask("PUT", O, b"hello")
        status = (await serving.ask("GET", O, b"", "owner", **ranged)).status
        store.bodies_gone = TRIES_MAX - 1
        answer = await serving.ask("GET", O, b"", "owner", **ranged)
        assert (answer.status, answer.headers["etag"]) == (status, MD5_HELLO)
        assert len(answer.body) == int(answer.headers["content-length"])
        store.bodies_gone = TRIES_MAX
        answer = await serving.ask("GET", O, b"", "owner", **ranged)
        assert answer.status == 503, "and never a length that does not come"
        assert "etag" not in answer.headers


async def test_reads_obey_conditions(serving: Serving) -> None:
    put = await serving.ask("PUT", O, b"hello")
    modified = put.headers["last-modified"]
    for fields, status in (
        ({"If_Match": MD5_HELLO}, 200),
        ({"If_Match": "x"}, 412),
        ({"If_None_Match": MD5_HELLO}, 304),
        ({"If_Modified_Since": modified}, 304),
        ({"If_Unmodified_Since": modified}, 200),
        ({"If_Unmodified_Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, 412),
    ):
        for method in ("GET", "HEAD"):
            answer = await serving.ask(method, O, b"", "owner", **fields)
            assert (answer.status, answer.headers["etag"]) == (status, MD5_HELLO)
    whole = await serving.ask("GET", O, Range="bytes=0-0", If_Range='"other"')
    assert (whole.status, whole.body) == (200, b"hello")


async def test_writes_obey_conditions(serving: Serving) -> None:
    assert (await serving.ask("PUT", O, b"hello", If_Match="*")).status == 412
    assert (await serving.ask("PUT", O, b"hello", If_None_Match="*")).status == 201
    assert (await serving.ask("PUT", O, b"other", If_None_Match="*")).status == 412
    assert (await serving.ask("PUT", O, b"other", If_Match="x")).status == 412
    assert (await serving.ask("POST", O, If_Match="x")).status == 412
    assert (await serving.ask("DELETE", O, If_Match="x")).status == 412
    assert (await serving.ask("GET", O)).body == b"hello"
    assert (await serving.ask("PUT", O, b"other", If_Match=MD5_HELLO)).status == 201
    assert (await serving.ask("DELETE", O, If_Match="*")).status == 204


async def test_what_is_not_there_is_404(serving: Serving) -> None:
    for method in ("GET", "HEAD", "DELETE", "POST"):
        assert (await serving.ask(method, O)).status == 404
        assert (await serving.ask(method, f"{A}/absent/o")).status == 404
    assert (await serving.ask("PUT", f"{A}/absent/o", b"x")).status == 404


# --- copies -------------------------------------------------------------------------------------------------------


async def test_a_copy_is_described_as_its_source_and_the_request_wins(serving: Serving) -> None:
    await serving.ask(
        "PUT", f"{C}/a%20%C3%A9", b"hello", Content_Type="text/x", X_Object_Meta_A="1", X_Object_Meta_B="1"
    )
    copied = await serving.ask("COPY", f"{C}/a%20%C3%A9", Destination="/c/b%2525", X_Object_Meta_B="2")
    assert copied.status == 201
    assert copied.headers["etag"] == MD5_HELLO
    assert copied.headers["x-copied-from"] == "c/a%20%C3%A9"
    assert copied.headers["x-copied-from-account"] == "AUTH_test"
    assert copied.headers["x-copied-from-last-modified"] == "Tue, 14 Nov 2023 22:13:21 GMT"
    get = await serving.ask("GET", f"{C}/b%2525")
    assert (get.body, get.headers["content-type"]) == (b"hello", "text/x")
    assert (get.headers["x-object-meta-a"], get.headers["x-object-meta-b"]) == ("1", "2")


async def test_a_copy_with_fresh_metadata_has_only_what_the_request_says(serving: Serving) -> None:
    await serving.ask("PUT", O, b"hello", X_Object_Meta_A="1", Content_Type="text/x", X_Delete_After="60")
    copied = await serving.ask(
        "PUT", f"{C}/p", X_Copy_From="c/o", X_Fresh_Metadata="true", X_Object_Meta_B="2"
    )
    assert copied.status == 201
    headers = (await serving.ask("HEAD", f"{C}/p")).headers
    assert headers["x-object-meta-b"] == "2"
    assert headers["content-type"] == "text/x"
    assert not {"x-object-meta-a", "x-delete-at"} & set(headers)


@pytest.mark.parametrize(
    ("method", "body", "fields", "status"),
    [
        ("PUT", b"x", {"X_Copy_From": "c/o"}, 400),
        ("PUT", b"", {"X_Copy_From": "c"}, 412),
        ("PUT", b"", {"X_Copy_From": "c/%ff"}, 412),
        ("PUT", b"", {"X_Copy_From": "c/%"}, 412),
        ("PUT", b"", {"X_Copy_From": "c/absent"}, 404),
        ("PUT", b"", {"X_Copy_From": "absent/o"}, 404),
        ("PUT", b"", {"X_Copy_From": "c/o", "X_Copy_From_Account": "AUTH_else"}, 403),
        ("PUT", b"", {"X_Copy_From": "c/o", "Range": "bytes=0-1"}, 501),
        ("PUT", b"", {"X_Copy_From": "c/o", "If_Match": "x"}, 412),
        ("PUT", b"", {"X_Copy_From": "c/o", "If_None_Match": MD5_HELLO}, 412),
        ("PUT", b"", {"X_Copy_From": "c/o", "If_None_Match": "*"}, 201),
        ("COPY", b"", {}, 412),
        ("COPY", b"", {"Destination": "c"}, 412),
        ("COPY", b"", {"Destination": "c/" + "x" * 1025}, 400),
        ("COPY", b"", {"Destination": "absent/x"}, 404),
        ("COPY", b"", {"Destination": "c/x", "Destination_Account": "AUTH_else"}, 403),
        ("COPY", b"", {"Destination": "c/o", "If_None_Match": "*"}, 412),
    ],
    ids=str,
)
async def test_copies_that_cannot_be_made(
    serving: Serving, method: str, body: bytes, fields: dict[str, str], status: int
) -> None:
    await serving.ask("PUT", O, b"hello")
    path = O if method == "COPY" else f"{C}/target"
    assert (await serving.ask(method, path, body, "owner", **fields)).status == status


# --- what is not there yet, and what goes wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("PUT", O, {"X_Object_Manifest": "c/x"}),
        ("PUT", f"{O}?multipart-manifest=put", {}),
        ("GET", f"{O}?multipart-manifest=get", {}),
        ("DELETE", f"{O}?Multipart-Manifest=delete", {}),
        ("GET", f"{O}?temp_url_sig=x&temp_url_expires=1", {}),
        ("PUT", f"{A}?extract-archive=tar", {}),
        ("POST", f"{A}?bulk-delete", {}),
        ("PUT", f"{A}/v", {"X_Versions_Location": "c"}),
        ("POST", C, {"X_Versions_Enabled": "true"}),
        ("PUT", O, {"X_Symlink_Target": "c/x"}),
        ("COPY", O, {"X_Object_Manifest": "c/x", "Destination": "c/p"}),
        ("POST", A, {"X_Account_Meta_Temp_URL_Key": "secret"}),
        ("PUT", f"{A}/v", {"X_Container_Meta_Quota_Bytes": "10"}),
        ("POST", C, {"X_Container_Meta_Web_Index": "index.html"}),
        ("POST", C, {"X_Container_Meta_Access_Control_Allow_Origin": "*"}),
    ],
    ids=str,
)
async def test_what_is_not_there_yet_is_501_and_never_stored(
    serving: Serving, method: str, path: str, fields: dict[str, str]
) -> None:
    assert (await serving.ask(method, path, b"", "owner", **fields)).status == 501
    assert not serving.store.bodies
    assert len(serving.store.container_infos) == 1


@pytest.mark.parametrize("token", ["owner", ""])
@pytest.mark.parametrize("path", [C, f"{C}/prefix-", O])
@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=x", "Multipart/Form-Data ;boundary=x"]
)
async def test_a_form_post_is_501_and_describes_nothing_anew(
    serving: Serving, token: str, path: str, content_type: str
) -> None:
    await serving.ask("PUT", O, b"hello", X_Object_Meta_Colour="blue")
    answer = await serving.ask("POST", path, b"--x--\r\n", token, Content_Type=content_type)
    assert answer.status == 501
    assert (await serving.ask("HEAD", O)).headers["x-object-meta-colour"] == "blue"


async def test_a_post_may_give_any_other_type(serving: Serving) -> None:
    await serving.ask("PUT", O, b"hello")
    assert (await serving.ask("POST", O, Content_Type="multipart/mixed; boundary=x")).status == 202
    assert (await serving.ask("PUT", O, b"hello", Content_Type="multipart/form-data")).status == 201


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Unavailable(), 503, b"nothing was changed"),
        (OutcomeUnknown(), 503, b"not known"),
        (OutOfSpace(), 507, b"full"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_trouble_below_is_told(
    serving: Serving, error: StoreError, status: int, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(serving.store.objects, "put", fail)
    answer = await serving.ask("PUT", O, b"x")
    assert (answer.status, text in answer.body) == (status, True)
    assert ("retry-after" in answer.headers) == (status == 503)


async def test_requests_at_once_share_a_worker(serving: Serving) -> None:
    async with asyncio.TaskGroup() as group:
        for at in range(50):
            group.create_task(serving.ask("PUT", f"{C}/{at:02d}", b"x"))
    assert len((await serving.ask("GET", C)).body.split()) == 50
