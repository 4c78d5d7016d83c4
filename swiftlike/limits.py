"""Bounds: every queue, pool, buffer and length that the world can make grow, with its reason.

Owns numbers only. Whoever meets a bound says there what happens: wait, refuse, or drop and count.
"""

from dataclasses import dataclass
from typing import Final

# --- entries, clocks and the storage engine ---------------------------------------------------------------------

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

PLACED_PARTITIONS_MAX: Final = 16_384
"""Partitions of one ring whose owners a process keeps at hand; some five megabytes, and read again above it."""

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

SCAN_THREADS: Final = 4
"""Threads of one device that scan its index: apart from the others, so that scans keep no body waiting."""

INDEX_LOOKUPS_WINDOW: Final = 1_000
"""Look-ups over which the major faults of the index are counted."""

INDEX_FAULTS_MAX: Final = 10
"""Major faults in such a window above which look-ups leave the event loop: each stalls it for one read of the disk."""

INDEX_LOOKUPS_SAMPLED: Final = 8
"""Look-ups on the event loop between two questions to the kernel, each of which costs a tenth of a look-up."""

READ_CHUNK_BYTES: Final = 1024 * 1024
"""Bytes of one step of a streamed read, and so of its message: what a step costs apart from its bytes is paid once a MiB. Reads
by 256 KiB reached three quarters of the rate."""

RESERVE_BYTES: Final = 1024**3
"""Free space below which new bodies are refused, unless the configuration says otherwise; deletes and rows go on."""

RESERVE_BYTES_MIN: Final = 4 * 1024**2
"""The least that the configuration may say: without a reserve, the first commit that meets the full disk ends the process."""

COMMIT_ROOM_BYTES_MAX: Final = 16 * 1024**2
"""What is left of the reserve for a commit to begin at all is a quarter of it, and this at most."""

IOVECS_MAX: Final = 1_024
"""Buffers in one `pwritev` (IOV_MAX on Linux)."""

INDEX_MAP_BYTES: Final = 4 * 1024**4
"""Address space of the index: sparse, and larger than a device, so that the disk is full before the map is."""

INDEX_READERS_MAX: Final = 256
"""Concurrent read transactions; each thread holds one slot."""

LEFTOVER_AGE_US: Final = 86_400 * 1_000_000
"""How long a file that nothing points at is left alone: longer than any write could take, whatever the clocks do."""

COMPACTION_BYTES_PER_S: Final = 16 * 1024**2
"""Bodies moved by compaction: a fraction of what any disk does, since whoever puts and gets has the right of way."""

SWEPT_ROWS_MAX: Final = 1_000
"""Rows of containers that are gone, removed in one commit beside everybody else's."""

STANDINGS_MOVED_MAX: Final = 10_000
"""Standings of partitions written in one commit when a part power was raised, before the device serves."""

WRITEBACK_BYTES: Final = 8 * 1024**2
"""Bytes of a streamed body after which the disk begins to write them, beside the arrival of the next."""

LEFTOVERS_MAX: Final = 10_000
"""Files that one pass of the removal takes, whose ids it remembers meanwhile."""

DEBTS_AT_ONCE: Final = 8
"""Debts that a device's updater pays at the same time: whoever puts and gets has the right of way."""

DEBTS_PER_S: Final = 500
"""Debts that a device's updater pays, at most: what a thousand writers leave when they die is paid within minutes."""

EXPIRED_AT_ONCE: Final = 16
"""Due objects that a device's expirer deletes at the same time."""

EXPIRED_PER_S: Final = 1_000
"""Due objects that a device's expirer deletes, at most, unless the host's file says otherwise, and a tenth of that while calls wait. Each
costs 1.1 ms of a core on each of three owners, rows and debts included (measured on real processes): of three devices that are at it,
each is busy with some 900 a second altogether, and for a third of its time at a tenth of the rate."""

AUDITED_BYTES_PER_S: Final = 16 * 1024**2
"""Bytes of bodies that a device's auditor reads back, unless the host's file says otherwise: 1.3 TiB a day, and a tenth of
what a spinning disk reads."""

AUDITED_BODIES_PER_S: Final = 200
"""Bodies that it reads back: 17 million a day, for some 5 % of a core."""

AUDITED_VALUES_PER_S: Final = 20_000
"""Values of the index, and rows, that it looks at: a hundred million in an hour and a half."""

UNREADABLE_MAX: Final = 10_000
"""Bodies that the disk did not read which a device remembers until others have come in their place; the latest of them."""

MENDED_PER_S: Final = 200
"""Bodies that a device's mender asks other owners for."""

MENDED_BYTES_PER_S: Final = 32 * 1024**2
"""Bytes of them: half of what a gigabit network carries is left to those who put and get."""

MENDS_WAITING_MAX: Final = 10_000
"""Bodies found bad that wait for the mender; what is above is on the list of what is missing all the same."""

REAPED_AT_ONCE: Final = 8
"""Objects of a deleted account that are removed at the same time."""

REAPED_PER_S: Final = 100
"""Objects of deleted accounts that a device removes, unless the host's file says otherwise: 8 million a day."""

ACCOUNTS_SCANNED_PER_S: Final = 20_000
"""Accounts that the reaper looks at: a million in less than a minute."""

FLOORS_PER_S: Final = 20
"""Partitions of which a device's reclaimer asks all owners how they stand: 16,384 in a quarter of an hour."""

RECLAIMED_PER_S: Final = 2_000
"""Tombstones, promises and rows that it forgets: a hundred million in fourteen hours."""

COMPARED_EVERY_S: Final = 30.0
"""From the end of one comparison of a device with all of its peers to the next, unless the host's file says otherwise: a message to
each peer, when all is well."""

COMPARED_AGAIN_S: Final = 2.0
"""After a pass that found copies missing or somebody silent; twice as long after each that finds it so still."""

HEALED_PER_S: Final = 4_000
"""Entries and rows that a device takes from its peers, at most: whoever puts and gets has the right of way."""

HEALED_PARTITION_ITEMS: Final = 10
"""Entries that a partition counts as beside those that are taken of it: to ask about it and to vote takes some 3 ms of CPU at both ends
together, and of a device that is emptied, thousands hold nothing."""

HEALED_BYTES_PER_S: Final = 64 * 1024**2
"""Bytes of bodies that it takes, at most."""

PAUSE_S_MAX: Final = 86_400
"""How long an operator may keep a device from taking from its peers: what a day adds is healed in hours."""

COPIES_AT_ONCE: Final = 64
"""Copies that a device's replicator offers to its own acceptors at the same time: they share commits."""

RANGES_TOGETHER: Final = 16
"""Ranges of one partition whose versions are asked for in one call, at most."""

VERSIONS_AT_ONCE: Final = 2_048
"""Versions of each end that are compared at once, about, unless a single range has more."""

PARTITIONS_AT_ONCE: Final = 8
"""Partitions that a device heals at the same time, each from one peer after the other: together from all peers."""

PEERS_AT_ONCE: Final = 8
"""Peers that a device compares with at the same time."""

HINTS_MAX: Final = 20_000
"""Partitions that a device was told to compare and has not yet; above it, the next pass finds them."""

OLD_INDEX_AGE_US: Final = 7 * 86_400 * 1_000_000
"""How long the index that a rebuild set aside is kept, for a second thought."""

DESCRIPTORS_MAX: Final = 65_536
"""Open files and connections that a process asks the kernel for: above all the bounds here together."""

# --- internal RPC (swiftlike/rpc) -------------------------------------------------------------------------------

RPC_HEADER_BYTES_MAX: Final = 80 * 1024
"""The msgpack header of a frame: a path and a register with an entry of METADATA_BYTES_MAX; what is larger is a body."""

RPC_BODY_BYTES_MAX: Final = 1024 * 1024
"""The raw body of a frame; larger bodies travel as a stream of frames."""

RPC_HANDSHAKE_HEADER_BYTES_MAX: Final = 256
"""The header of a frame before its sender has proved that it holds the secret; such a frame has no body."""

RPC_HANDSHAKE_BYTES_MAX: Final = 1024
"""All bytes that a stranger may send; the handshake takes about 200."""

RPC_SECRET_BYTES_MIN: Final = 16
"""A shorter cluster secret could be guessed."""

RPC_METHOD_BYTES_MAX: Final = 64
"""The name of a method."""

RPC_UNIX_SEND_BYTES: Final = 1024 * 1024
"""What the kernel may hold of a Unix socket: its default, 208 KiB, is less than one message of a stream, and each would
then take several turns of both ends. TCP sizes its buffers by itself."""

RPC_DEADLINE_MS_MAX: Final = 2**32 - 1
"""The time left to a call, as it travels; later deadlines are cut to this, seven weeks."""


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """Bounds of one process on the internal RPC; tests pass smaller ones."""

    # Either end.
    handshake_s: float = 10.0
    """From the connection's first byte to its last proof; a peer that takes longer is disconnected. It is two round trips, and
    a loop that moves a hundred megabytes a turn, for hundreds of uploads at once, takes a second for each half of one."""
    goodbye_s: float = 1.0
    """At the end of a process: for peers to take what was sent to them, and to close their connections themselves."""
    write_buffer_bytes: int = 256 * 1024
    """Unsent bytes on one connection above which its writer waits for the peer to read."""
    stream_window_bytes: int = 4 * 1024 * 1024
    """What one end of a stream may send before the other has consumed it, as long as few streams are open: four messages of
    STREAM_MESSAGE_BYTES."""
    stream_window_bytes_min: int = 256 * 1024
    """The same where many are open: four messages of 64 KiB; a header of RPC_HEADER_BYTES_MAX must fit twice."""
    stream_windows_bytes: int = 48 * 1024 * 1024
    """What all streams of a process may leave unconsumed together, before new ones get the least window: 12 streams of 4
    MiB, 192 of 256 KiB. A thousand streams that all stall keep 380 MiB, and 400 keep 230 MiB."""
    stream_stall_s: float = 30.0
    """The longest wait for the other end of a stream to take or to give a single frame."""

    # The calling end.
    connections_max: int = 2048
    """Connections that this process opens; above it the one unused longest closes, or the caller waits. Each takes about 50
    KB and a descriptor; 400 uploads at once to three devices each take 1,200."""
    connecting_per_peer_max: int = 64
    """Connections for streams that are being opened to one peer; the others wait, so that a burst of uploads does not fill
    what that peer keeps for strangers."""
    idle_s: float = 60.0
    """An unused connection closes after this, so that many workers and many devices are no standing mesh."""
    connect_s: float = 3.0
    """To open a connection, without the handshake; a live host on a sound network needs milliseconds."""
    calls_pending_max: int = 1024
    """Calls that wait for their answer on one connection, or for any peer to be reached; above it a call is not sent."""
    outbox_bytes_max: int = 16 * 1024 * 1024
    """Bodies of calls that wait for a peer to read them; above it a call is not sent."""
    streams_per_peer_max: int = 512
    """Open streams to one peer; above it the caller waits. In a cluster of three devices each upload has one to every device,
    and a client that stalls must not keep others waiting: so as many as clients a worker serves at once."""
    streams_waiting_max: int = 1024
    """Callers of this process that wait for their turn to open a stream; above it a stream is not sent."""
    ping_s: float = 3.0
    """After a call timed out, a peer silent for this long more loses its connection."""

    # The serving end.
    served_connections_max: int = 4096
    """Connections that a process serves; above it a newcomer is told "full"."""
    strangers_max: int = 512
    """Connections whose handshake has not ended; above it the one that has taken longest is dropped."""
    served_idle_factor: float = 1.5
    """The serving end closes unused connections later than the calling end, so that no call meets a closing door."""
    calls_in_flight_max: int = 4096
    """Calls at work in the whole process; above it the answer is "busy"."""
    calls_in_flight_per_connection_max: int = 1024
    """Calls at work of one connection; above it the answer is "busy"."""
    bytes_in_flight_max: int = 256 * 1024 * 1024
    """Bodies of calls at work in the whole process; above it the answer is "busy"."""
    streams_in_flight_max: int = 1024
    """Streams at work in the whole process, each with up to a window of bytes; above it the answer is "busy"."""
    replies_bytes_max: int = 8 * 1024 * 1024
    """Replies that one peer has not read yet; above it the answer to its further calls is "busy"."""

    def window_bytes(self, streams_open: int) -> int:
        """Return the window of a stream that is opened beside so many others: the more there are, the smaller."""
        share = self.stream_windows_bytes // (streams_open + 1)
        return min(self.stream_window_bytes, max(self.stream_window_bytes_min, share))


# --- what a device is asked over the RPC (swiftlike/node_calls, storage_node/service) ---------------------------

PATH_BYTES_MAX: Final = 256 + 1 + 256 + 1 + 1_024 + 64
"""The longest path of a register: three names, and room for what a hidden name adds (an upload, a part, a version)."""

ITEMS_MAX: Final = 10_000
"""Rows, debts, registers or digests in one call or its answer; their bytes are bounded by RPC_BODY_BYTES_MAX besides."""

VERSIONS_SCANNED_MAX: Final = 20_000
"""Registers that one call of a replicator makes a device look at: some 100 ms on a thread."""

COPY_INLINE_BYTES_MAX: Final = 512 * 1024
"""The largest body that a copy brings along; a larger one is streamed."""

COMPARED_PAGE: Final = 250
"""Keys in one call of owners who compare, or in its answer: the longest fit RPC_BODY_BYTES_MAX with their versions, and a page is some
millisecond of the loop at either end, for which a get may have to wait."""
assert COMPARED_PAGE * (PATH_BYTES_MAX + 256) < RPC_BODY_BYTES_MAX

PAGE_ITEMS_MAX: Final = 1_000
"""Items of an answer when the caller names no limit."""

STREAM_MESSAGE_BYTES: Final = 1024 * 1024
"""Body bytes of one message of a stream, at most: a quarter of its window is, so that four are on their way."""

WRITE_RUN_BYTES: Final = 1024 * 1024
"""Bytes of a streamed body that are handed to the disk in one step, so that a thread hop costs little of it. While they are
written the next run arrives: an incoming stream holds two of them, and a window of the RPC."""

ROWS_BATCH_MAX: Final = 1_000
"""Rows of one call; as many again are in the next."""

ROWS_BATCH_BYTES_MAX: Final = RPC_BODY_BYTES_MAX * 3 // 4
"""Bytes of the rows of one call, estimated from above."""

OFFERS_BATCH_MAX: Final = 64
"""Offers of one call: some milliseconds of a device's loop and writer, so that no other call waits long behind them."""

OFFERS_BATCH_BYTES_MAX: Final = RPC_BODY_BYTES_MAX // 2
"""Bytes of the offers of one call, their bodies included."""

OFFER_JOINED_BYTES_MAX: Final = 64 * 1024
"""What one offer may have to travel with others; a larger one spares nothing by it, and would be copied once more."""

DEBTS_BATCH_MAX: Final = 500
"""Debts of one call: 500 of the longest paths fit a frame."""

# --- the domain (proxy/store) -----------------------------------------------------------------------------------

DEBTS_WAITING_MAX: Final = 20_000
"""Debts that a proxy is about to pay; above it they are left to the updaters."""

CONTAINERS_CACHED_MAX: Final = 10_000
"""Containers whose info a proxy keeps for a second."""

BUCKETS_CACHED_MAX: Final = 10_000
"""Bucket names whose account a proxy keeps for a second."""

CONTAINERS_DIRTY_MAX: Final = 10_000
"""Containers whose usage a proxy still owes to their accounts; above it the one marked first is forgotten, and counted."""

PARTS_MAX: Final = 10_000
"""Parts of one object: their list is an object's body, and fits a frame."""

PART_BYTES_MIN: Final = 5 * 1024**2
"""The smallest part of an S3 upload but for its last, as in S3: clients count on the refusal."""

OBJECT_BYTES_MAX: Final = 5 * 1024**4
"""The largest object of many parts, as in S3."""

PARTS_FREED_AT_ONCE: Final = 8
"""Parts of uploads that a proxy deletes at the same time: whoever puts and gets has the right of way."""

MARKS_PER_PASS_MAX: Final = 1_000
"""Uploads that one pass of a proxy's freeing looks at, of all that are due; the rest is the next one's."""

# --- HTTP (proxy/http, proxy/server) ----------------------------------------------------------------------------

HTTP_LINE_BYTES_MAX: Final = 32 * 1024
"""A request line: three percent-encoded names of 256, 256 and 1,024 bytes are 4.6 KB, and a query may name three more."""

HTTP_FIELD_BYTES_MAX: Final = 16 * 1024
"""One header; Swift's own limit of 8,192 bytes is then told in its own words."""

HTTP_FIELDS_MAX: Final = 256
"""Headers of a request: 90 items of metadata, and room for what clients and balancers add."""

HTTP_READ_BYTES: Final = 64 * 1024
"""What a connection buffers of an unread body; twice that stops the reading of its socket."""

RANGES_MAX: Final = 50
"""Ranges in one request; more are refused, since each costs a seek."""

RANGE_OVERLAPS_MAX: Final = 2
"""Ranges in one request that begin within another one: each may ask for all of the body once more."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one proxy worker towards its clients; tests pass smaller ones."""

    connections_max: int = 8192
    """Connections; a newcomer above it is told 503 and closed."""
    requests_in_flight_max: int = 1024
    """Requests at work; above it the answer is 503, before anything of a body is read."""
    retry_after_s: int = 1
    """What such an answer says about when to come again."""
    head_s: float = 15.0
    """For a request's line and headers to arrive, from their first byte on."""
    keepalive_s: float = 75.0
    """An idle connection closes after this, later than most balancers in front would."""
    client_idle_s: float = 60.0
    """The longest wait for a client to send more of its body, or to take more of an answer."""
    linger_s: float = 2.0
    """How long the rest of a refused body is thrown away, so that the client sees the answer before the connection ends."""
    request_s: float = 30.0
    """The deadline of what a request asks of the cluster; while a body moves it means "without progress"."""
    drain_s: float = 20.0
    """After SIGTERM, how long requests at work may take to finish."""
