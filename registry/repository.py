"""What a registry can do, as four roles: read, write, delete, list.

The HTTP layer knows only these. Read-only mode is another implementation of them (`readonly.py`),
and so will be pull-through and limits: never a flag inside a handler. Each method names the errors
it may raise; besides those, every method may raise storage's StorageError.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from oci.digest import Digest
from oci.manifest import Manifest
from oci.reference import Reference
from serving.body import RequestBody
from storage.driver import StorageDriver
from storage.plan import LocalFile

INLINE: Final = 64 * 1024
"""bytes: a blob up to this size is read at once and sent with its head; a larger one is sent from
its open file"""


@dataclass(slots=True)
class BlobContent:
    """A blob that may be read. Whoever gets it closes it."""

    digest: Digest
    size: int
    path: str
    driver: StorageDriver
    content: bytes | None = None
    file: LocalFile | None = None

    def read(self, offset: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes from `offset`, in pieces."""
        return self.driver.read(self.path, offset, length)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was received."""

    digest: Digest
    content: bytes
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for a tag that is written or deleted (RFC 9110 If-Match, If-None-Match: *).

    `matches`: the digests of which the tag must have one now; `absent`: the tag must not be there.
    """

    matches: tuple[Digest, ...] | None = None
    absent: bool = False


ALWAYS: Final = Condition()


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload session. `started_at` is RFC 3339 in UTC, `size` the bytes that are on storage."""

    name: str
    id: str
    started_at: str
    size: int
    algorithm: str = "sha256"


@dataclass(frozen=True, slots=True)
class ManifestPush:
    """One PUT of a manifest: by `digest` alone, or with `tags`."""

    digest: Digest
    content: bytes
    manifest: Manifest
    tags: tuple[str, ...]
    condition: Condition = ALWAYS


@dataclass(frozen=True, slots=True)
class Referrer:
    """A descriptor of a referrers list (OCI distribution-spec, "Listing Referrers")."""

    media_type: str
    digest: str
    size: int
    artifact_type: str | None
    annotations: dict[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """Sorted names, and whether there are more after the last."""

    names: Sequence[str]
    more: bool


class Reader(Protocol):
    async def stat_blob(self, name: str, digest: Digest) -> int:
        """The blob's size in bytes. Raises BlobUnknown."""
        ...

    async def open_blob(self, name: str, digest: Digest) -> BlobContent:
        """Raises BlobUnknown."""
        ...

    async def blob_redirect(self, name: str, digest: Digest, method: str) -> str | None:
        """An address to fetch the blob from instead, or None. Raises BlobUnknown."""
        ...

    async def get_manifest(self, name: str, reference: Reference) -> StoredManifest:
        """Raises NameUnknown, ManifestUnknown."""
        ...

    async def referrers(self, name: str, subject: Digest) -> list[Referrer]:
        """All manifests of the repository whose subject is `subject`; none for an absent
        repository."""
        ...


class Writer(Protocol):
    async def mount_blob(self, name: str, digest: Digest, source: str | None) -> bool:
        """Links a blob of repository `source` (of any, for None) into `name`. False where it is not
        to be had."""
        ...

    async def start_upload(self, name: str, algorithm: str) -> Upload: ...

    async def upload_status(self, name: str, upload: str) -> Upload:
        """Raises BlobUploadUnknown."""
        ...

    async def append_upload(self, upload: Upload, body: RequestBody) -> Upload:
        """Appends the body where the upload stands (`upload.size`).

        Raises BlobUploadUnknown, RangeInvalid (it stands elsewhere, or another request is writing).
        """
        ...

    async def finish_upload(self, upload: Upload, body: RequestBody, digest: Digest) -> int:
        """Appends the body and commits the whole as `digest`, linked into the repository; its size
        in bytes.

        Raises BlobUploadUnknown, RangeInvalid, DigestInvalid (the content has another digest: the
        upload is removed).
        """
        ...

    async def cancel_upload(self, name: str, upload: str) -> None:
        """Raises BlobUploadUnknown."""
        ...

    async def put_manifest(self, name: str, push: ManifestPush) -> list[str]:
        """Stores the manifest and sets its tags; gives warnings for the client.

        Raises ManifestBlobUnknown, SizeInvalid, PreconditionFailed.
        """
        ...


class Deleter(Protocol):
    async def delete_blob(self, name: str, digest: Digest) -> None:
        """Removes the repository's link to the blob. Raises BlobUnknown."""
        ...

    async def delete_tag(self, name: str, tag: str, condition: Condition) -> None:
        """Raises NameUnknown, ManifestUnknown, PreconditionFailed."""
        ...

    async def delete_manifest(self, name: str, digest: Digest) -> None:
        """Removes the manifest from the repository, and the tags that point to it. Raises
        ManifestUnknown."""
        ...

    async def delete_content(self, digest: Digest) -> None:
        """Removes a blob's bytes from storage, whoever links it. Nothing where it is absent."""
        ...


class Lister(Protocol):
    async def tags(self, name: str, after: str, limit: int) -> Page:
        """Raises NameUnknown."""
        ...

    async def repositories(self, after: str, limit: int) -> Page: ...


class Registry(Reader, Writer, Deleter, Lister, Protocol):
    """All four roles."""
