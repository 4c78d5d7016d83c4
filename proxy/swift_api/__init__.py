"""The Swift API: HTTP on one side, the domain's operations on the other. In the order in which to read it:

    refusals    what a client is told when something is not done: one table from the domain's errors to statuses
    paths       /v1/account/container/object
    metadata    user metadata in headers, its limits, and what POST does to it
    descriptions  the other headers that describe an object or a container
    later       features that are not there yet: refused by name, never stored in silence
    facts       what stands there, as headers
    listings    which page is asked for, and how it is written: plain, JSON, XML
    access      who asks, and what he may do: the door to `proxy/auth`
    asks        one request on its way, with what every handler needs
    accounts, containers, objects, copies      the handlers, one method each
    root        what needs no account: /auth/v1.0, /info, /healthcheck
    api         which handler a request goes to

Never decides who may do what (`proxy/auth`), never knows devices or quorums (`proxy/store`).
"""
