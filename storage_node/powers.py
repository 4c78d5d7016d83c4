"""Part powers: what an index knows of partitions, carried over when a ring's part power was raised.

Owns the standings of partitions that are numbered under another power than the ring's. Nothing else depends on a power:
keys and digests stand by bucket.

A child partition inherits what its parent stood for, votes, floor and refusals: it holds a part of the same entries. Each
commit moves whole families, parents out and children in, so that an interrupted conversion goes on where it stopped. A
part power never sinks, so a lower one is a foreign or an outdated ring, and refused.
"""

from itertools import islice

from storage_node import keys, tables
from storage_node.errors import DeviceRefused
from storage_node.index import Index
from storage_node.keys import Layout
from storage_node.tables import Change
from swiftlike.limits import STANDINGS_MOVED_MAX


def carry_standings(index: Index, layout: Layout) -> int:
    """Renumber every standing under the part powers of `layout`, in bounded commits; return how many parents there were.

    Raises DeviceRefused, before anything is changed, when a part power is lower than the one that the index knows.
    """
    for table, power in layout.part_powers.items():
        _refuse_lower(index, table, power)
    carried = 0
    for table, power in layout.part_powers.items():
        while (earlier := _earlier_power(index, table, power)) is not None:
            carried += _carry_some(index, layout, table, earlier)
    return carried


def _refuse_lower(index: Index, table: bytes, power: int) -> None:
    above = keys.standings_prefix(table, power + 1)
    with index.reading() as view:
        found = next(view.scan(above, keys.after(keys.STANDINGS + table)), None)
    if found is not None:
        _, known, _ = keys.standing_of(found[0])
        raise DeviceRefused(
            f"the ring of table {table!r} has part power {power}, and this device has known {known}: a part power never "
            "sinks; give this host the newest ring of its own cluster"
        )


def _earlier_power(index: Index, table: bytes, power: int) -> int | None:
    """Return the lowest part power under which a partition of a table still stands, if that is not the ring's."""
    with index.reading() as view:
        found = next(view.scan(keys.STANDINGS + table, keys.standings_prefix(table, power)), None)
    return None if found is None else keys.standing_of(found[0])[1]


def _carry_some(index: Index, layout: Layout, table: bytes, earlier: int) -> int:
    """Replace some standings numbered under an earlier power by those of their children."""
    generations = layout.part_powers[table] - earlier
    prefix = keys.standings_prefix(table, earlier)
    view = index.begin()
    try:
        change = Change(view, layout, {})
        scanned = view.scan(prefix, keys.after(prefix))
        some = list(islice(scanned, max(1, STANDINGS_MOVED_MAX >> generations)))
        for key, raw in some:
            _, _, parent = keys.standing_of(key)
            for child in range(parent << generations, (parent + 1) << generations):
                change.set_standing(table, child, tables.decode_standing(raw))
            view.delete(key)
    except BaseException:
        view.abort()
        raise
    view.commit()
    return len(some)
