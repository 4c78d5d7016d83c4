"""How devices and searches are written: tables of what is read and what is refused, and what is printed is read back."""

import ipaddress
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.device import DEVICE_ID_MAX, Device, DeviceId
from tools.ring_builder.notation import (
    META_BYTES_MAX,
    NAME_BYTES_MAX,
    REGION_MAX,
    NotationError,
    Search,
    changed,
    normal_host,
    pairs_of,
    parse_change,
    parse_device,
    parse_overload,
    parse_place,
    parse_search,
    parse_weight,
)

DEVICE = Device(DeviceId(3), 1, 2, "127.0.0.1", 6200, "sdb1", 100.0, "rack 4")


# Devices


@pytest.mark.parametrize(
    ("text", "device"),
    [
        (
            "r1z2-127.0.0.1:6200/sdb1_rack 4",
            Device(DeviceId(7), 1, 2, "127.0.0.1", 6200, "sdb1", 100.0, "rack 4"),
        ),
        ("z2-127.0.0.1:6200/sdb1", Device(DeviceId(7), 1, 2, "127.0.0.1", 6200, "sdb1", 100.0)),
        ("d9r1z2-127.0.0.1:6200/sdb1", Device(DeviceId(9), 1, 2, "127.0.0.1", 6200, "sdb1", 100.0)),
        ("d0r0z0-127.0.0.1:1/s", Device(DeviceId(0), 0, 0, "127.0.0.1", 1, "s", 100.0)),
        ("r1z1-[FD00::0:5]:6200/sdb1", Device(DeviceId(7), 1, 1, "fd00::5", 6200, "sdb1", 100.0)),
        ("r1z1-Node_1.example:6200/sdb1", Device(DeviceId(7), 1, 1, "node_1.example", 6200, "sdb1", 100.0)),
        ("r1z1-a:6200/sdb1_m_n/o:p", Device(DeviceId(7), 1, 1, "a", 6200, "sdb1", 100.0, "m_n/o:p")),
        ("r1z1-a:6200/sdb1_", Device(DeviceId(7), 1, 1, "a", 6200, "sdb1", 100.0)),
    ],
)
def test_a_device_is_read(text: str, device: Device) -> None:
    assert parse_device(text, 100.0, new_id=7) == device


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sdb1",
        "r1z1",
        "r1-127.0.0.1:6200/sdb1",
        "z1r1-127.0.0.1:6200/sdb1",
        "r1z1127.0.0.1:6200/sdb1",
        "r1z1-127.0.0.1/sdb1",
        "r1z1-127.0.0.1:6200",
        "r1z1-127.0.0.1:6200/",
        "r1z1-127.0.0.1:6200/_m",
        "r1z1-127.0.0.1:6200/a/b",
        "r1z1-127.0.0.1:6200/..",
        "r1z1-127.0.0.1:6200/sd\nb1",
        "r1z1-127.0.0.1:6200/sdb1_m\x1b[31m",
        "r1z1-127.0.0.1:6200/sd\udcff",
        "r1z1-::1:6200/sdb1",
        "r1z1-[::g]:6200/sdb1",
        "r1z1-[fe80::1%eth0]:6200/sdb1",
        "r1z1-[127.0.0.1]:6200/sdb1",
        "r1z1-127.0.0.256:6200/sdb1",
        "r1z1-10.1:6200/sdb1",
        "r1z1--a:6200/sdb1",
        "r1z1-a..b:6200/sdb1",
        "r1z1-a b:6200/sdb1",
        "r١z1-127.0.0.1:6200/sdb1",
        f"r{REGION_MAX + 1}z1-127.0.0.1:6200/sdb1",
        "r1z1-127.0.0.1:620000/sdb1",
        f"r1z1-127.0.0.1:6200/{'a' * (NAME_BYTES_MAX + 1)}",
        f"r1z1-127.0.0.1:6200/sdb1_{'é' * (META_BYTES_MAX // 2 + 1)}",
        f"r1z1-{'a' * 64}:6200/sdb1",
        f"r1z1-{'a.' * 127}a:6200/sdb1",
    ],
)
def test_what_is_no_device_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(NotationError, match=r"; (write|leave|shorten)"):
        parse_device(text, 100.0, new_id=0)


@pytest.mark.parametrize(
    "text", ["r1z1-10.0.0.1:6200R10.0.0.1:6300/sdb1", "z1-[::1]:6200R[::1]:6300/sdb1_meta"]
)
def test_a_replication_address_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(NotationError, match="not supported, since a device is reached at one address"):
        parse_device(text, 100.0, new_id=0)


addresses = st.ip_addresses().map(str).filter(lambda text: not ipaddress.ip_address(text).is_unspecified)
labels = st.from_regex(r"[a-z]([a-z0-9_-]{0,20}[a-z0-9])?", fullmatch=True)
host_names = st.lists(labels, min_size=1, max_size=3).map(".".join)
printable = st.characters(exclude_categories=["C", "Z"])
names = st.text(printable, min_size=1, max_size=20).filter(
    lambda text: not {"/", "_"} & set(text) and text not in {".", ".."}
)


@given(
    device=st.builds(
        Device,
        id=st.integers(0, DEVICE_ID_MAX).map(DeviceId),
        region=st.integers(0, REGION_MAX),
        zone=st.integers(0, REGION_MAX),
        host=addresses | host_names,
        port=st.integers(1, 65535),
        name=names,
        weight=st.floats(0, 1e9),
        meta=st.text(printable, max_size=20),
        uuid=st.none() | st.uuids(),
    )
)
def test_a_device_is_read_back_as_it_is_printed(device: Device) -> None:
    assert parse_device(str(device), device.weight, new_id=5, uuid=device.uuid) == device


# Searches


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("d3", Search(id=3)),
        ("r1", Search(region=1)),
        ("z2", Search(zone=2)),
        ("r1z2", Search(region=1, zone=2)),
        ("d3r1z2", Search(id=3, region=1, zone=2)),
        ("d3z2", Search(id=3, zone=2)),
        ("z1-127.0.0.1", Search(zone=1, host="127.0.0.1")),
        ("127.0.0.1", Search(host="127.0.0.1")),
        ("-127.0.0.1", Search(host="127.0.0.1")),
        ("127.0.0.1:6200", Search(host="127.0.0.1", port=6200)),
        ("[::0:1]:6200", Search(host="::1", port=6200)),
        ("r1-[::1]", Search(region=1, host="::1")),
        (":6200", Search(port=6200)),
        ("z1:6200", Search(zone=1, port=6200)),
        ("/sdb1", Search(name="sdb1")),
        ("d3/sdb1", Search(id=3, name="sdb1")),
        ("_rack 4", Search(meta="rack 4")),
        ("z2_m_n", Search(zone=2, meta="m_n")),
        ("_", Search(meta="")),
        ("d1x", Search(host="d1x")),
        ("Disk.Example", Search(host="disk.example")),
        ("z1-z2", Search(zone=1, host="z2")),
        (
            "d3r1z2-127.0.0.1:6200/sdb1_rack 4",
            Search(id=3, region=1, zone=2, host="127.0.0.1", port=6200, name="sdb1", meta="rack 4"),
        ),
    ],
)
def test_a_search_value_is_read(text: str, search: Search) -> None:
    assert parse_search(text) == search


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "d3-",
        "d3:",
        "/",
        "-",
        ":",
        ":port",
        "z1-127.0.0.999",
        "[::1",
        "127.0.0.1:6200:1",
        "d3 r1",
        "*",
    ],
)
def test_what_is_no_search_value_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(NotationError, match="; write it like"):
        parse_search(text)


def test_a_search_for_a_replication_address_is_refused_with_the_reason() -> None:
    with pytest.raises(NotationError, match="one address for everything"):
        parse_search("z1-10.0.0.1:6200R10.0.0.1:6300")


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (Search(), True),
        (Search(id=3), True),
        (Search(id=4), False),
        (Search(region=1, zone=2), True),
        (Search(region=1, zone=3), False),
        (Search(region=2), False),
        (Search(host="127.0.0.1", port=6200), True),
        (Search(host="127.0.0.2"), False),
        (Search(port=6201), False),
        (Search(name="sdb1"), True),
        (Search(name="sdb"), False),
        (Search(weight=100.0), True),
        (Search(weight=0.0), False),
        (Search(meta="rack 4"), True),
        (Search(meta=""), False),
    ],
    ids=str,
)
def test_a_search_finds_what_is_all_that_it_asks_for(search: Search, found: bool) -> None:
    assert search.matches(DEVICE) is found


def test_a_device_is_found_by_its_own_name() -> None:
    assert parse_search(str(DEVICE)).matches(DEVICE)


# Changes and numbers


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("10.0.0.9:6300/sdz_new", "d3r1z2-10.0.0.9:6300/sdz_new"),
        ("10.0.0.9", "d3r1z2-10.0.0.9:6200/sdb1_rack 4"),
        (":6300", "d3r1z2-127.0.0.1:6300/sdb1_rack 4"),
        ("/sdz", "d3r1z2-127.0.0.1:6200/sdz_rack 4"),
        ("_", "d3r1z2-127.0.0.1:6200/sdb1"),
    ],
)
def test_a_change_leaves_what_it_does_not_name(text: str, name: str) -> None:
    assert str(changed(DEVICE, parse_change(text))) == name


@pytest.mark.parametrize("text", ["d3", "r1z1-10.0.0.1", "z2"])
def test_a_change_of_place_is_refused_with_the_command_for_it(text: str) -> None:
    with pytest.raises(NotationError, match="use set_region or set_zone"):
        parse_change(text)


def test_what_is_no_change_is_refused_with_what_one_looks_like() -> None:
    with pytest.raises(NotationError, match=r"write it like 127\.0\.0\.1:6200/sdb1_meta"):
        parse_change("?")


@pytest.mark.parametrize(
    ("text", "weight"), [("100", 100.0), ("1e3", 1000.0), ("0", 0.0), ("-5", -5.0), (".5", 0.5)]
)
def test_a_weight_is_a_number(text: str, weight: float) -> None:
    assert parse_weight(text) == weight


@pytest.mark.parametrize("text", ["", "heavy", "nan", "inf", "1e999", "100%"])
def test_what_is_no_weight_is_refused(text: str) -> None:
    with pytest.raises(NotationError, match="write a number"):
        parse_weight(text)


@pytest.mark.parametrize(
    ("text", "overload"), [("0.1", 0.1), ("10%", 0.1), ("0", 0.0), ("250%", 2.5), ("-1", -1.0)]
)
def test_an_overload_is_a_factor_or_a_percentage(text: str, overload: float) -> None:
    assert parse_overload(text) == pytest.approx(overload)


@pytest.mark.parametrize("text", ["", "%", "much", "10%%"])
def test_what_is_no_overload_is_refused(text: str) -> None:
    with pytest.raises(NotationError, match=r"write 0\.1 or 10%"):
        parse_overload(text)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "٣", "1" * 10])
def test_a_region_is_a_whole_number(text: str) -> None:
    assert parse_place("7", "region") == 7
    with pytest.raises(NotationError, match="is not a region; write a whole number"):
        parse_place(text, "region")


@pytest.mark.parametrize("values", [(), ("a",), ("a", "b", "c")], ids=len)
def test_values_that_are_not_pairs_are_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(NotationError, match="are not pairs of SEARCH WEIGHT"):
        pairs_of(values, "SEARCH WEIGHT")


def test_an_ipv6_address_given_alone_needs_no_brackets() -> None:
    assert normal_host("FD00::0:5") == normal_host("[fd00::5]") == "fd00::5"


def test_a_uuid_is_kept_with_the_device() -> None:
    uuid = UUID(int=1)
    assert parse_device("z1-a:1/s", 1.0, 0, uuid).uuid == uuid
