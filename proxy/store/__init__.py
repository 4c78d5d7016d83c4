"""The domain: accounts, containers and objects, as both dialects mean them. In the order in which to read it:

    names           an account, a container, an object: the path and the register that each of them is
    values          what the domain takes and gives: descriptions, bodies on their way, listings, usage
    errors          what may go wrong, once for both dialects
    outcomes        what the end of a register's write or read means here
    rows            rows upserted at a majority of a listing's owners, in batches
    debts           debts cleared behind the answer, in batches
    merging         a page out of the rows of several owners, and what they add up to: pure
    listing_owners  a question to the owners of a listing, and whose word counts
    listings        a page of rows and its sums, proved by digests or merged
    usage           what containers hold, carried to their accounts
    accounts        accounts
    cache           containers seen within the last moments
    containers      containers and their incarnations
    uploads, bodies bodies on their way in and out
    object_listing  the row that an object owes, whatever becomes of its container meanwhile
    objects         objects: write, read, describe anew, delete, copy
    payer           a debt that its writer did not pay
    store           all of it over one quorum client

Stands on `proxy/cluster`, which knows registers. Never sees HTTP: what a header says is its dialect's business.
"""
