"""The internal RPC: calls and streams between the processes of one cluster.

Read it in this order:

    transport    what callers see: addresses, replies and their outcomes, the Transport interface
    service      what handlers see: calls, and the registry of methods
    frames       bytes on the wire
    handshake    who holds the cluster's secret
    connection   one connection, whichever end: frames in, frames out, one flush per loop turn
    stream       one end of a stream: credit, stalls, abort
    client       the calling end: a Transport over any network; `called` holds its connections
    server       the serving end, over any network; `served` holds its connections, `admission` their bounds
    network      sockets
    simulated    a network that exists only in memory and in virtual time (virtual_time)
    errors       what can go wrong, as a tree
"""
