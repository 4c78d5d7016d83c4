"""The S3 dialect, in the order in which to read it:

    signatures  what a signature covers, what it proves, and how it is refused
    sigv4       AWS Signature Version 4: in headers, in the query, of POST policies
    sigv2       the older version, in headers and in the query
    claims      which of these a request is signed by, if any
    chunks      bodies that come in signed chunks, with or without trailers
    xml         documents, both ways
    errors      what a client is told when something is not done: codes, statuses, and the domain's errors as codes
    resources   which bucket and key a request is about, by path or by host
    grants      ACLs: canned, as they are stored, and as XML
    checksums   CRC32, CRC32C, CRC64NVME, SHA1, SHA256: promised in headers and trailers, kept, given back
    descriptions  metadata and the other headers that describe an object
    uploads     a body, unwrapped and held against all that was promised of it
    conditional  If-Match and its kin
    tokens      where a listing goes on
    later       headers that ask for what is not there: refused by name
    access      who asks, and what he may do: the door to `proxy/auth`
    asks        one request on its way, with what every handler needs
    versions    in a bucket that has none
    listings, buckets, objects, tags, attributes, copies, deletes      the handlers, one operation each
    forms       browsers' forms, read as they come
    post_policies  what the policy of a form lets it upload
    posts       POST of a form
    probes      sub-resources that are not there, answered as by a bucket without them
    api         which handler a request goes to

Never decides who may do what (`proxy/auth`), never knows devices or quorums (`proxy/store`).
"""
