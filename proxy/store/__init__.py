"""The domain: accounts, containers and objects, as both dialects mean them. In the order in which to read it:

    names       an account, a container, an object: the path and the register that each of them is
    values      what the domain takes and gives: descriptions, bodies on their way, listings, usage
    errors      what may go wrong, once for both dialects
    rows        rows upserted at a majority of a listing's owners, and debts cleared, in batches
    listings    a page of rows, proved by digests or merged from several owners
    containers  containers and their incarnations
    accounts    accounts, and what their containers add up to
    objects     objects: write, read, describe anew, delete, copy
    store       all of it over one quorum client

Stands on `proxy/cluster`, which knows registers. Never sees HTTP: what a header says is its dialect's business.
"""
