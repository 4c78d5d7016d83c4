"""The S3 dialect, in the order in which to read it:

    signatures  what a signature covers, what it proves, and how it is refused
    sigv4       AWS Signature Version 4: in headers, in the query, of POST policies
    sigv2       the older version, in headers and in the query
    claims      which of these a request is signed by, if any
    chunks      bodies that come in signed chunks, with or without trailers

Never decides who may do what (`proxy/auth`), never knows devices or quorums (`proxy/store`).
"""
