"""What a client is told when something is not done: S3's codes, their statuses, and the XML around them.

Owns the one table from codes to statuses and sentences, and the one from the domain's errors, and those of bodies and
signatures, to codes. Clients switch on codes, so a code that is not in the table is a bug.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from proxy.http.errors import (
    BodyIncomplete,
    BodyMalformed,
    BodyTimeout,
    BodyTooLarge,
    CodingRefused,
    DigestMalformed,
    RequestError,
    TargetRefused,
)
from proxy.http.request import Request
from proxy.http.response import Response
from proxy.s3_api.signatures import SignatureRefused
from proxy.s3_api.xml import XML_TYPE, Element, write_document
from proxy.store.errors import (
    AccountDeleted,
    BucketTaken,
    ConditionFailed,
    ContainerNotEmpty,
    NoSuchAccount,
    NoSuchContainer,
    NoSuchObject,
    NoSuchUpload,
    OutcomeUnknown,
    OutOfSpace,
    Refused,
    StoreError,
    Unavailable,
    UploadClaimed,
)

CODES: Final[Mapping[str, tuple[int, str]]] = {
    "AccessDenied": (403, "Access Denied"),
    "AccessForbidden": (403, "CORSResponse: CORS is not enabled for this bucket."),
    "AccountProblem": (403, "The account was deleted."),
    "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
    "AuthorizationQueryParametersError": (400, "The authorization parameters are malformed."),
    "BadRequest": (400, "Bad Request"),
    "BadDigest": (
        400,
        "The Content-MD5 or checksum value that you specified did not match what we received.",
    ),
    "BucketAlreadyExists": (
        409,
        "The requested bucket name is not available: it belongs to another user of this system. Select a different one.",
    ),
    "BucketAlreadyOwnedByYou": (
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size"),
    "ExpiredToken": (400, "The provided token has expired."),
    "IllegalLocationConstraintException": (
        400,
        "The location constraint is incompatible for the region specific endpoint this request was sent to.",
    ),
    "IncorrectNumberOfFilesInPostRequest": (400, "POST requires exactly one file upload per request."),
    "IncompleteBody": (400, "The request body terminated unexpectedly."),
    "InsufficientStorage": (507, "The devices that this belongs to are full; nothing was stored."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidDigest": (400, "The Content-MD5 you specified was invalid."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found, or have another entity tag than was specified.",
    ),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable."),
    "InvalidPartOrder": (
        400,
        "The list of parts was not in ascending order. Parts must be ordered by part number.",
    ),
    "InvalidPolicyDocument": (
        400,
        "The content of the form does not meet the conditions specified in the policy document.",
    ),
    "InvalidRange": (416, "The requested range is not satisfiable."),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidStorageClass": (
        400,
        "The storage class you specified is not valid: this cluster has STANDARD only.",
    ),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "KeyTooLongError": (400, "Your key is too long."),
    "MalformedACLError": (400, "The ACL you provided is not one that there can be."),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "MalformedTrailerError": (400, "The request contained trailing data that was not well-formed."),
    "MalformedXML": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema.",
    ),
    "MaxPostPreDataLengthExceededError": (
        400,
        "Your POST request fields preceding the upload file were too large.",
    ),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingSecurityHeader": (400, "Your request was missing a required header."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist."),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist."),
    "NoSuchConfiguration": (404, "The specified configuration does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist."),
    "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found."),
    "NoSuchTagSet": (404, "The TagSet does not exist."),
    "NoSuchUpload": (404, "The specified upload does not exist."),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration."),
    "NotImplemented": (501, "This cluster does not have the feature that the request asks for."),
    "ObjectLockConfigurationNotFoundError": (
        404,
        "Object Lock configuration does not exist for this bucket.",
    ),
    "OperationAborted": (
        409,
        "A conflicting operation is in progress against this resource. Please try again.",
    ),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold."),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found."),
    "RequestTimeTooSkewed": (
        403,
        "The difference between the request time and the server's time is too large.",
    ),
    "RequestTimeout": (
        400,
        "Your socket connection to the server was not read from or written to within the timeout period.",
    ),
    "ServerSideEncryptionConfigurationNotFoundError": (
        404,
        "The server side encryption configuration was not found.",
    ),
    "ServiceUnavailable": (503, "Too few devices answered; nothing was changed. Please try again."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the one you provided.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
    "XAmzContentSHA256Mismatch": (
        400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
}

_UNKNOWN: Final = (
    "It is not known whether this was done: too few devices answered in time. Look, or try again."
)

_CLAIMED: Final = (
    "The upload is being completed, or was until whoever did it broke off. Completing it with the same parts goes on with "
    "that; to give it up, or complete it with others, try again later."
)

_CODE_OF: Final[dict[type[Exception], str]] = {
    NoSuchAccount: "NoSuchBucket",
    AccountDeleted: "AccountProblem",
    NoSuchContainer: "NoSuchBucket",
    NoSuchObject: "NoSuchKey",
    NoSuchUpload: "NoSuchUpload",
    ConditionFailed: "PreconditionFailed",
    ContainerNotEmpty: "BucketNotEmpty",
    BucketTaken: "BucketAlreadyExists",
    UploadClaimed: "OperationAborted",
    Refused: "InvalidRequest",
    OutOfSpace: "InsufficientStorage",
    Unavailable: "ServiceUnavailable",
    OutcomeUnknown: "ServiceUnavailable",
    BodyTooLarge: "EntityTooLarge",
    BodyTimeout: "RequestTimeout",
    BodyMalformed: "IncompleteBody",
    BodyIncomplete: "IncompleteBody",
    DigestMalformed: "InvalidDigest",
    TargetRefused: "InvalidURI",
}


class S3Error(Exception):
    """An answer that is not what was asked for."""

    def __init__(
        self,
        code: str,
        message: str = "",
        facts: Mapping[str, str] | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Take the code, a sentence in place of the usual one, more elements of the answer, and headers."""
        super().__init__(message or CODES[code][1])
        self.code = code
        self.facts: Final[Mapping[str, str]] = facts or {}
        self.headers = headers


def invalid_argument(message: str, name: str, value: str) -> S3Error:
    """Return the refusal of a parameter or header, which is named."""
    return S3Error("InvalidArgument", message, {"ArgumentName": name, "ArgumentValue": value[:100]})


def not_implemented(what: str) -> S3Error:
    """Return the refusal of what is not there."""
    return S3Error("NotImplemented", f"A header or parameter you provided asks for what is not there: {what}")


Told = S3Error | StoreError | RequestError | SignatureRefused


def told(error: Told) -> S3Error:
    """Return what a client is told of an error."""
    if isinstance(error, S3Error):
        return error
    if isinstance(error, SignatureRefused):
        # The answer to a HEAD has no body, and clients look for the right region in the head.
        region = error.facts.get("Region")
        headers = [] if region is None else [("x-amz-bucket-region", region)]
        return S3Error(error.code, str(error), error.facts, headers)
    if isinstance(error, UploadClaimed):
        return S3Error(_CODE_OF[UploadClaimed], _CLAIMED)
    if isinstance(error, CodingRefused):
        return not_implemented("Transfer-Encoding, but for chunked")
    kind = next(kind for kind in type(error).__mro__ if kind in _CODE_OF)
    return S3Error(_CODE_OF[kind], _UNKNOWN if isinstance(error, OutcomeUnknown) else "")


def response_to(error: Told, request: Request, host_id: str) -> Response:
    """Return the answer to what went wrong; a HEAD's has no body."""
    refusal = told(error)
    status = CODES[refusal.code][0]
    headers = [*refusal.headers, ("Content-Type", XML_TYPE)]
    if status == 503:
        headers.append(("Retry-After", "1"))
    if request.method == "HEAD":
        return Response(status, headers)
    resource = request.path.decode("utf-8", "replace")
    elements = [
        Element("Code", refusal.code),
        Element("Message", str(refusal)),
        *(Element(name, value) for name, value in refusal.facts.items()),
        Element("Resource", resource),
        Element("RequestId", request.transaction_id),
        Element("HostId", host_id),
    ]
    return Response(status, headers, write_document("Error", elements, namespace=""))
