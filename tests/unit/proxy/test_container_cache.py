"""What a process believes of containers it has seen."""

from proxy.store.cache import ContainerCache
from proxy.store.names import ContainerName
from proxy.store.values import ContainerInfo
from swiftlike.entries import Entry
from swiftlike.timestamps import NO_WRITE, Ballot


def info(name: bytes, at: int = 1) -> ContainerInfo:
    """A container as of a ballot."""
    return ContainerInfo(ContainerName(b"acc", name), Entry(Ballot.of(at, 1), NO_WRITE, at), {})


def test_what_was_asked_long_ago_is_not_believed() -> None:
    cache = ContainerCache(2)
    cache.put(info(b"a"), asked_at=10.0)
    seen = cache.get(ContainerName(b"acc", b"a"), asked_after=10.0)
    assert seen is not None
    assert seen.info == info(b"a")
    assert cache.get(ContainerName(b"acc", b"a"), asked_after=10.1) is None


def test_an_answer_that_comes_late_does_not_replace_a_newer_one() -> None:
    cache = ContainerCache(2)
    cache.put(info(b"a", 2), asked_at=10.0)
    cache.put(info(b"a", 1), asked_at=11.0)
    seen = cache.get(ContainerName(b"acc", b"a"), asked_after=0.0)
    assert seen is not None
    assert seen.info == info(b"a", 2)


def test_the_container_unused_longest_is_forgotten_first() -> None:
    cache = ContainerCache(2)
    for name in (b"a", b"b"):
        cache.put(info(name), asked_at=1.0)
    cache.get(ContainerName(b"acc", b"a"), asked_after=0.0)
    cache.put(info(b"c"), asked_at=1.0)
    there = [name for name in (b"a", b"b", b"c") if cache.get(ContainerName(b"acc", name), 0.0)]
    assert there == [b"a", b"c"]
