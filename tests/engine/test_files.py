"""Large files as they are staged: what is written does not depend on how the body was cut on its way."""

import tempfile
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from storage_node.blocks import block_sums
from storage_node.disk import Disk
from storage_node.files import Files
from swiftlike.limits import BLOCK_BYTES

SEED = 2**64 - 2

lengths = st.one_of(
    st.integers(0, 3 * BLOCK_BYTES),
    st.sampled_from([1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES]),
)


@given(st.lists(st.lists(lengths, max_size=4), max_size=4))
def test_a_staged_file_holds_the_body_and_its_checksums_however_it_was_cut(runs: list[list[int]]) -> None:
    body = bytes(at * 7919 % 251 for at in range(1009)) * (sum(map(sum, runs)) // 1009 + 1)
    with tempfile.TemporaryDirectory() as directory:
        staged = Files(Path(directory), Path(directory), UUID(int=1), Disk()).stage(SEED)
        at = 0
        for run in runs:
            chunks = []
            for length in run:
                chunks.append(body[at : at + length])
                at += length
            staged.write(chunks)
        staged.flush()
        assert staged.size == at
        assert staged.path.read_bytes() == body[:at]
        assert b"".join(staged.sums) == block_sums(memoryview(body[:at]), SEED)
        staged.abort()
        assert not staged.path.exists()
