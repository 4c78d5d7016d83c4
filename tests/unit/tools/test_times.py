"""Timestamps and ballots in words."""

from swiftlike.timestamps import Ballot, Timestamp
from tools.times import ballot_told, time_told, timestamp_told

AT_US = 1_700_000_000_000_001


def test_a_time_is_written_as_logs_write_it() -> None:
    assert time_told(AT_US) == "2023-11-14T22:13:20.000001Z"
    assert time_told(0) == "1970-01-01T00:00:00.000000Z"
    assert time_told(2**64 - 1) == "18446744073709551615 microseconds after 1970"


def test_a_ballot_tells_its_writer_and_its_container() -> None:
    created = Timestamp.of(AT_US - 1, 9)
    assert timestamp_told(created) == "2023-11-14T22:13:20.000000Z by writer 0000000000000009"
    assert ballot_told(Ballot.of(AT_US, 0xAB)) == "2023-11-14T22:13:20.000001Z by writer 00000000000000ab"
    assert ballot_told(Ballot.of(AT_US, 0xAB, created)) == (
        "2023-11-14T22:13:20.000001Z by writer 00000000000000ab, "
        "in the container of 2023-11-14T22:13:20.000000Z by writer 0000000000000009"
    )
