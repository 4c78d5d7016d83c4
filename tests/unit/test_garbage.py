"""What a process that serves keeps of freed memory."""

import ctypes
import subprocess
import sys

import pytest

TRANSFER = """
import resource, sys
from swiftlike.garbage import keep_freed_memory

def transfer():
    held = [bytearray(1024**2) for _ in range(4)]

if sys.argv[1] == "kept":
    keep_freed_memory()
transfer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    transfer()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults_of(kept: str) -> int:
    """Return the page faults of ten transfers of 4 MiB, once the first is over."""
    done = subprocess.run(
        [sys.executable, "-c", TRANSFER, kept], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this libc keeps what it likes")
def test_a_buffer_of_a_large_body_that_is_freed_and_made_again_costs_no_page_faults() -> None:
    assert faults_of("kept") < 100 < faults_of("given back")
