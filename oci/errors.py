"""The error codes of the OCI distribution specification (and Docker's) as a closed family of
exceptions.

No HTTP in here: the status of each code is the business of the HTTP layer
(`registry/v2/errors.py`).

RegistryError
  Unauthorized, Denied, NameInvalid, NameComponentsInvalid, NameUnknown, ManifestUnknown,
  ManifestInvalid, ManifestTooLarge, ManifestBlobUnknown, BlobUnknown, BlobUploadUnknown,
  BlobUploadInvalid, UploadContentInvalid, DigestInvalid, SizeInvalid, RangeInvalid, TagInvalid,
  PreconditionFailed, PaginationNumberInvalid, Unsupported, TooManyTags, TooManyRequests,
  Unavailable
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class RegistryError(Exception):
    """A refusal that the client is told about.

    `code` is the specification's code, `message` a sentence for a person (what was refused, and the
    next step), `detail` any JSON value. `more` holds further errors of the same answer, such as one
    per missing blob.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.more: Sequence[RegistryError] = ()


class Unauthorized(RegistryError):
    code = "UNAUTHORIZED"


class Denied(RegistryError):
    code = "DENIED"


class NameInvalid(RegistryError):
    code = "NAME_INVALID"


class NameComponentsInvalid(NameInvalid):
    """The name has not got exactly the two parts `<namespace>/<name>`: nothing of that name can
    ever be pulled."""


class NameUnknown(RegistryError):
    code = "NAME_UNKNOWN"


class ManifestUnknown(RegistryError):
    code = "MANIFEST_UNKNOWN"


class ManifestInvalid(RegistryError):
    code = "MANIFEST_INVALID"


class ManifestTooLarge(ManifestInvalid):
    """The manifest's body is over the limit of 4 MiB."""


class ManifestBlobUnknown(RegistryError):
    code = "MANIFEST_BLOB_UNKNOWN"


class BlobUnknown(RegistryError):
    code = "BLOB_UNKNOWN"


class BlobUploadUnknown(RegistryError):
    code = "BLOB_UPLOAD_UNKNOWN"


class BlobUploadInvalid(RegistryError):
    """The upload's state token is unsigned, or made for another repository or upload."""

    code = "BLOB_UPLOAD_INVALID"


class UploadContentInvalid(BlobUploadInvalid):
    """A header of an upload request (Content-Type, Content-Range) is not of the right form."""


class DigestInvalid(RegistryError):
    code = "DIGEST_INVALID"


class SizeInvalid(RegistryError):
    code = "SIZE_INVALID"


class RangeInvalid(RegistryError):
    """A chunk does not begin where the upload stands, or another request is writing to it."""

    code = "RANGE_INVALID"


class TagInvalid(RegistryError):
    code = "TAG_INVALID"


class TooManyTags(TagInvalid):
    """More tags in one push than the limit."""


class PreconditionFailed(RegistryError):
    code = "PRECONDITION_FAILED"


class PaginationNumberInvalid(RegistryError):
    code = "PAGINATION_NUMBER_INVALID"


class Unsupported(RegistryError):
    code = "UNSUPPORTED"


class TooManyRequests(RegistryError):
    code = "TOOMANYREQUESTS"


class Unavailable(RegistryError):
    code = "UNAVAILABLE"
