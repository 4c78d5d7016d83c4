"""Every bound of the system, in one place: queues, buffers, lengths and times, with the reason for each figure."""

from typing import Final

# ---- entries, clocks and the storage engine ------------------------------------------------------------

CLOCK_AHEAD_FIRST_US: Final = 60 * 1_000_000
"""A first offer may be this far ahead of a device's clock; a clock follows what it sees by no more."""

CLOCK_AHEAD_PASSING_US: Final = 300 * 1_000_000
"""A ballot that must pass a refused one may be this far ahead."""

RECLAIM_AGE_US: Final = 7 * 86_400 * 1_000_000
"""How long tombstones and promises are remembered unless the configuration says otherwise."""

METADATA_BYTES_MAX: Final = 64 * 1024
"""Encoded metadata of one entry: Swift allows 4 KiB of user metadata, S3 headers, ACLs and sysmeta need room."""

REMEMBERED_MAX: Final = 8
"""Replaced entries whose ballots and write ids an acceptor keeps; the register model was checked with this depth."""

RANGE_ROWS_MAX: Final = 4_096
"""Rows under one digest; a range that grows beyond is split in its middle."""

LISTING_ROWS_MAX: Final = 10_000
"""Rows and common prefixes in one page of a listing."""

LISTING_SCANNED_MAX: Final = 50_000
"""Rows that one page looks at: tombstones and due rows cost time too, and a page that meets many ends early."""

BLOCK_BYTES: Final = 128 * 1024
"""Bytes under one body checksum: the least that a read must verify, and hash in about ten microseconds."""

SMALL_BODY_BYTES_MAX: Final = 1024 * 1024
"""Larger bodies get a file of their own; smaller ones share a volume."""

BODY_BYTES_MAX: Final = 5 * 1024**3
"""The largest body of one object; larger ones are manifests of segments."""

VOLUME_BYTES_MAX: Final = 1024**3
"""A volume is rolled when the next record would pass this size."""

VOLUMES_OPEN_MAX: Final = 4_096
"""Volumes on one device, each of which holds a descriptor: 4 TiB of small bodies at 1 GiB each."""

QUEUED_OPERATIONS_MAX: Final = 4_096
"""Operations that wait for the writer thread; beyond it a caller waits for room."""

QUEUED_BYTES_MAX: Final = 64 * 1024**2
"""Bodies that wait for the writer thread; one body is always let in, however large."""

BATCH_OPERATIONS_MAX: Final = 1_024
"""Operations under one sync: bounds how long the first of them waits for the last."""

BATCH_BYTES_MAX: Final = 32 * 1024**2
"""Body bytes under one sync."""

READ_THREADS: Final = 16
"""Threads of one device that wait for cold reads and large files: enough to fill a disk's queue."""

READ_CHUNK_BYTES: Final = 1024**2
"""Bytes of one step of a streamed read, a multiple of BLOCK_BYTES."""

RESERVE_BYTES: Final = 1024**3
"""Free space below which new bodies are refused, unless the configuration says otherwise; deletes and rows go on."""

IOVECS_MAX: Final = 1_024
"""Buffers in one `pwritev` (IOV_MAX on Linux)."""

INDEX_MAP_BYTES: Final = 4 * 1024**4
"""Address space of the index: sparse, and larger than a device, so that the disk is full before the map is."""

INDEX_READERS_MAX: Final = 256
"""Concurrent read transactions; each thread holds one slot."""

# ---- end of the storage engine --------------------------------------------------------------------------
