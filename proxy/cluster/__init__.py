"""Quorum reads and writes over the ring, in the order in which to read them:

    quorum      who must answer, and whether enough have: pure
    decisions   what the answers of a round mean, and what comes next: pure
    placement   which devices those are, under one epoch of a ring
    rings       those rings, followed in their files
    rounds      ask many, go on when enough have answered, and keep hold of the rest
    nodes       how a device is called, and what a failed call proves
    looks       the round of a read, in fewer steps: what stands at a key, asked of its owners
    bodies      bodies that a copy lacks, and bodies on their way to a reader
    uploads     a large body on its way to all owners at once
    offers      one entry offered to all owners, and copies for those that are down
    register    the register of each key: write, write on a condition, settle, read

Knows keys, entries and bodies. Containers, listings and debts are the domain's (`proxy/store`), which stands on this.
"""
