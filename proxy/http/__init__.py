"""What both dialects share of HTTP. In the order in which to read it:

    errors      what is wrong with a request or its body, before any dialect has its say
    target      the request target: path and query, percent-decoded once, as bytes
    dates       HTTP dates, both ways
    conditions  If-Match and its kin: what they mean for a read and for a write
    ranges      Range: which bytes are asked for
    byteranges  several ranges in one answer
    request     one request
    body        its body, as it arrives
    response    one answer, and how its head is written

Everything but `body` is pure. Only `proxy/connections.py` knows the HTTP library, and nobody here knows what is stored.
"""
