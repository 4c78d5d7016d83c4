"""The fields of calls: what is read in one pass is what is read one by one."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from storage_node.requests import EPOCH_MAX, Fields, parse_get
from swiftlike.limits import RPC_BODY_BYTES_MAX
from swiftlike.rpc.errors import CallFailed
from swiftlike.rpc.service import Call

SOUND = {"table": b"o\0", "epoch": 1, "path": b"a\0c\0o", "inline_bytes": 4096}
values = (
    st.sampled_from(
        [True, 0, 1, -1, EPOCH_MAX, EPOCH_MAX + 1, RPC_BODY_BYTES_MAX, RPC_BODY_BYTES_MAX + 1, 1.5]
    )
    | st.sampled_from([b"", b"c\0", b"a\0", b"a\0c", b"a\0c\0", b"a\0\0c\0o", b"a\0c\0\xff", b"a" * 3000])
    | st.none()
    | st.text(max_size=3)
    | st.binary(max_size=12)
)


def one_by_one(call: Call) -> tuple[bytes, int, bytes, int]:
    """Read the fields as every other method does."""
    fields = Fields(call, SOUND.keys())
    table, epoch = fields.table(), fields.number("epoch", 1, EPOCH_MAX)
    return table, epoch, fields.path(table), fields.number("inline_bytes", 0, RPC_BODY_BYTES_MAX)


@given(
    st.dictionaries(st.sampled_from([*SOUND, "strange"]), values, max_size=3),
    st.sets(st.sampled_from([*SOUND]), max_size=1),
)
def test_a_get_is_read_in_one_pass_exactly_when_each_of_its_fields_would_be(
    changed: dict[str, Any], absent: set[str]
) -> None:
    header = {name: value for name, value in (SOUND | changed).items() if name not in absent}
    call = Call("get", header, b"", 0.0, "")
    try:
        wanted = one_by_one(call)
    except CallFailed:
        wanted = None
    assert parse_get(call) == wanted
