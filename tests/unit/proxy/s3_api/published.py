"""The examples that AWS publishes with its signatures, as requests. They are added to, never edited."""

from datetime import UTC, datetime
from hashlib import sha256

from proxy.s3_api.signatures import Head, Rules

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
RULES = Rules("us-east-1")
STAMP = "20130524T000000Z"
NOW_US = int(datetime(2013, 5, 24, tzinfo=UTC).timestamp()) * 1_000_000
EMPTY = sha256(b"").hexdigest()


def authorization(signed: str, signature: str) -> str:
    return (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={signed},Signature={signature}"
    )


def head(
    target: str,
    headers: dict[str, str],
    method: str = "GET",
    host: str = "examplebucket.s3.amazonaws.com",
    bucket: str = "",
) -> Head:
    """Make the head of a request."""
    path, _, query = target.partition("?")
    return Head(method, path, query, (("host", host), *headers.items()), bucket)


GET_RANGE = head(
    "/test.txt",
    {
        "authorization": authorization(
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        "range": "bytes=0-9",
        "x-amz-content-sha256": EMPTY,
        "x-amz-date": STAMP,
    },
)
PUT_OBJECT = head(
    "/test$file.text",
    {
        "authorization": authorization(
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        "date": "Fri, 24 May 2013 00:00:00 GMT",
        "x-amz-content-sha256": sha256(b"Welcome to Amazon S3.").hexdigest(),
        "x-amz-date": STAMP,
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
    },
    "PUT",
)
GET_LIFECYCLE = head(
    "/?lifecycle",
    {
        "authorization": authorization(
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        "x-amz-content-sha256": EMPTY,
        "x-amz-date": STAMP,
    },
)
LIST_OBJECTS = head(
    "/?max-keys=2&prefix=J",
    {
        "authorization": authorization(
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
        "x-amz-content-sha256": EMPTY,
        "x-amz-date": STAMP,
    },
)
IN_HEADERS = {
    "get a range": GET_RANGE,
    "put": PUT_OBJECT,
    "get lifecycle": GET_LIFECYCLE,
    "list": LIST_OBJECTS,
}

PRESIGNED = head(
    "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    f"&X-Amz-Credential={ACCESS_KEY}%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    f"&X-Amz-Date={STAMP}&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    {},
)

_CHUNKED = {
    "content-encoding": "aws-chunked",
    "x-amz-date": STAMP,
    "x-amz-decoded-content-length": "66560",
    "x-amz-storage-class": "REDUCED_REDUNDANCY",
}
CHUNKED = head(
    "/examplebucket/chunkObject.txt",
    {
        **_CHUNKED,
        "authorization": authorization(
            "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
            "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        ),
        "content-length": "66824",
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    },
    "PUT",
    "s3.amazonaws.com",
)
CHUNK_SIGNATURES = (
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
TRAILED = head(
    "/examplebucket/chunkObject.txt",
    {
        **_CHUNKED,
        "authorization": authorization(
            "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
            "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
        ),
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "x-amz-trailer": "x-amz-checksum-crc32c",
    },
    "PUT",
    "s3.amazonaws.com",
)
TRAILED_CHUNK_SIGNATURES = (
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
)
TRAILER = b"x-amz-checksum-crc32c:sOO8/Q=="
TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"
CHUNKS = (b"a" * 65_536, b"a" * 1_024, b"")


def version_2(
    target: str,
    signature: str,
    headers: dict[str, str],
    method: str = "GET",
    bucket: str = "awsexamplebucket1",
) -> Head:
    """Make the head of a request that is signed by version 2."""
    signed = {"authorization": f"AWS {ACCESS_KEY}:{signature}", **headers}
    return head(target, signed, method, f"{bucket}.us-west-1.s3.amazonaws.com", bucket)


IN_VERSION_2 = {
    "get": version_2(
        "/photos/puppy.jpg", "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=", {"date": "Tue, 27 Mar 2007 19:36:42 +0000"}
    ),
    "put": version_2(
        "/photos/puppy.jpg",
        "iqRzw+ileNPu1fhspnRs8nOjjIA=",
        {
            "content-type": "image/jpeg",
            "content-length": "94328",
            "date": "Tue, 27 Mar 2007 21:15:45 +0000",
        },
        "PUT",
    ),
    "list": version_2(
        "/?prefix=photos&max-keys=50&marker=puppy",
        "m0WP8eCtspQl5Ahe6L1SozdX9YA=",
        {"user-agent": "Mozilla/5.0", "date": "Tue, 27 Mar 2007 19:42:41 +0000"},
    ),
    "get acl": version_2(
        "/?acl", "82ZHiFIjc+WbcwFKGUVEQspPn+0=", {"date": "Tue, 27 Mar 2007 19:44:46 +0000"}
    ),
    "put with metadata": version_2(
        "/db-backup.dat.gz",
        "jtBQa0Aq+DkULFI8qrpwIjGEx0E=",
        {
            "user-agent": "curl/7.15.5",
            "date": "Tue, 27 Mar 2007 21:06:08 +0000",
            "x-amz-acl": "public-read",
            "content-type": "application/x-download",
            "content-md5": "4gJE4saaMU4BqNR0kLY+lw==",
            "x-amz-meta-reviewedby": "joe@example.com,jane@example.com",
            "x-amz-meta-filechecksum": "0x02661779",
            "x-amz-meta-checksumalgorithm": "crc32",
            "content-disposition": "attachment; filename=database.dat",
            "content-encoding": "gzip",
            "content-length": "5913339",
        },
        "PUT",
        "static.example.com",
    ),
    "unicode": version_2(
        "/dictionary/fran%C3%A7ais/pr%c3%a9f%c3%a8re",
        "DNEZGsoieTZ92F3bUfSPQcbGmlM=",
        {"date": "Wed, 28 Mar 2007 01:49:49 +0000"},
        bucket="",
    ),
}
