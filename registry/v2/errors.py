"""One table from the specification's error codes to HTTP status, and the one writer of error
bodies."""

from __future__ import annotations

import json
from typing import Final

from oci import errors
from oci.errors import RegistryError
from registry.v2.responses import JSON, Response
from registry.v2.routes import MethodNotAllowed, UriTooLong, is_absent_name
from serving.body import BodyInvalid, BodyTimeout, BodyTooLarge
from storage.driver import FileTooLarge, InvalidPath, OutOfSpace, ReadOnly, StorageError

RETRY_AFTER: Final = b"1"
"""seconds; what refuses for lack of a resource is worth another try at once"""

_STATUS: Final[dict[type[RegistryError], int]] = {
    errors.Unauthorized: 401,
    errors.Denied: 403,
    errors.NameInvalid: 400,
    errors.NameUnknown: 404,
    errors.ManifestUnknown: 404,
    errors.ManifestTooLarge: 413,
    errors.ManifestInvalid: 400,
    errors.ManifestBlobUnknown: 400,
    errors.BlobUnknown: 404,
    errors.BlobUploadUnknown: 404,
    errors.UploadContentInvalid: 400,
    errors.BlobUploadInvalid: 404,
    errors.DigestInvalid: 400,
    errors.SizeInvalid: 400,
    errors.RangeInvalid: 416,
    errors.TooManyTags: 414,
    errors.TagInvalid: 400,
    errors.PreconditionFailed: 412,
    errors.PaginationNumberInvalid: 400,
    errors.Unsupported: 405,
    errors.TooManyRequests: 429,
    errors.Unavailable: 503,
    UriTooLong: 414,
}


def status_of(error: RegistryError, method: str) -> int:
    """The HTTP status of an error in a request with `method`."""
    if is_absent_name(error, method):
        return 404
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return 500


def as_registry_error(error: Exception) -> RegistryError | None:
    """What the client is told of an error that is not the registry's own, or None for one that is a
    fault of ours."""
    match error:
        case RegistryError():
            return error
        case OutOfSpace():
            return errors.Unavailable("storage full")
        case ReadOnly():
            return errors.Unavailable("the storage is read-only")
        case FileTooLarge():
            return errors.SizeInvalid("the storage does not take files of that size")
        case InvalidPath():
            return errors.NameInvalid("the storage cannot keep that name")
        case StorageError():
            return errors.Unavailable("the storage does not answer")
        case BodyTimeout():
            return _BodyError("no byte of the body came for too long", 408)
        case BodyInvalid():
            return _BodyError("the body's chunks are broken", 400)
        case BodyTooLarge():
            return _BodyError("the body is too large", 413)
    return None


class _BodyError(RegistryError):
    """A body that could not be read."""

    code = "SIZE_INVALID"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def render(error: RegistryError, method: str) -> Response:
    """The response for `error`, with one entry for each of its further errors."""
    status = error.status if isinstance(error, _BodyError) else status_of(error, method)
    entries = []
    for one in (error, *error.more):
        entry: dict[str, object] = {"code": one.code, "message": one.message}
        if one.detail is not None:
            entry["detail"] = one.detail
        entries.append(entry)
    response = Response(status, [JSON], json.dumps({"errors": entries}, default=str).encode())
    if isinstance(error, MethodNotAllowed):
        response.headers.append((b"allow", ", ".join(error.allowed).encode()))
    if status in (429, 503):
        response.headers.append((b"retry-after", RETRY_AFTER))
    return response


INTERNAL: Final = RegistryError("internal error; the request id leads to the log")
