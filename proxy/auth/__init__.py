"""Who asks, and what he may do. In the order in which to read it:

    identities  who asks, and which account is his own: pure
    acls        the grammar of Swift's container ACLs: pure
    decisions   may this identity do this to that, and why: pure
    sealing     keys for each purpose from the cluster's secret, and secrets encrypted at rest
    tokens      what `/auth/v1.0` hands out: signed, expiring, remembered nowhere
    records     one user: roles, key, S3 keys, and how they are written down
    directory   users in the cluster itself: records under hidden names, changed by compare-and-swap
    users       what the rest of the proxy asks: a user by name or by access key, fresh to the second; and changes

Stands on `proxy/store`. Never sees a request: what a header says is its dialect's business.
"""
