"""Reads method, path and query of a request once into one typed value. Pure: no I/O, and handlers
never see the path.

Paths are anchored at their end, since a repository name may itself contain `blobs`, `manifests` or
`tags` (OCI distribution-spec, "Endpoints"; the end-N numbers are those of its table).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qs, unquote

from oci.digest import Digest
from oci.errors import (
    ManifestUnknown,
    NameComponentsInvalid,
    NameUnknown,
    RegistryError,
    TagInvalid,
    Unsupported,
)
from oci.reference import Reference, check_name

QUERY_LIMIT: Final = 1000
"""parameters in a query; a push names at most 100 tags, so nothing honest comes near"""


class Kind(StrEnum):
    PING = "ping"  # end-1
    BLOB = "blob"  # end-2, end-10
    MANIFEST = "manifest"  # end-3, end-7a, end-7b, end-9
    UPLOADS = "uploads"  # end-4a, end-4b, end-4c, end-11
    UPLOAD = "upload"  # end-5, end-6, end-13, end-14
    TAGS = "tags"  # end-8
    REFERRERS = "referrers"  # end-12
    CATALOG = "catalog"


ALLOWED: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.PING: ("GET", "HEAD"),
    Kind.BLOB: ("GET", "HEAD", "DELETE"),
    Kind.MANIFEST: ("GET", "HEAD", "PUT", "DELETE"),
    Kind.UPLOADS: ("POST",),
    Kind.UPLOAD: ("GET", "HEAD", "PATCH", "PUT", "DELETE"),
    Kind.TAGS: ("GET", "HEAD"),
    Kind.REFERRERS: ("GET", "HEAD"),
    Kind.CATALOG: ("GET", "HEAD"),
}

_READS: Final = frozenset({"GET", "HEAD"})

_OPERATIONS: Final[Mapping[tuple[Kind, str], str]] = {
    (Kind.BLOB, "GET"): "BlobStore.ServeBlob",
    (Kind.BLOB, "HEAD"): "BlobStore.Stat",
    (Kind.BLOB, "DELETE"): "BlobStore.Delete",
    (Kind.MANIFEST, "GET"): "ManifestService.Get",
    (Kind.MANIFEST, "HEAD"): "ManifestService.Exists",
    (Kind.MANIFEST, "PUT"): "ManifestService.Put",
    (Kind.MANIFEST, "DELETE"): "ManifestService.Delete",
    (Kind.UPLOADS, "POST"): "BlobStore.Create",
    (Kind.UPLOAD, "GET"): "BlobStore.Resume",
    (Kind.UPLOAD, "HEAD"): "BlobStore.Resume",
    (Kind.UPLOAD, "PATCH"): "BlobWriter.ReadFrom",
    (Kind.UPLOAD, "PUT"): "BlobWriter.Commit",
    (Kind.UPLOAD, "DELETE"): "BlobWriter.Cancel",
    (Kind.TAGS, "GET"): "TagService.All",
    (Kind.REFERRERS, "GET"): "ManifestService.Referrers",
    (Kind.CATALOG, "GET"): "Repositories.All",
}


class MethodNotAllowed(Unsupported):
    """A known path, but not with this method."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method[:32]} is not possible here, only {', '.join(allowed)}")
        self.allowed = allowed


class UriTooLong(RegistryError):
    """More parameters in the query than any client has reason to send."""


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request. `reference` is set for manifests, `digest` for blobs and referrers,
    `upload` for uploads."""

    kind: Kind
    method: str
    name: str = ""
    reference: Reference | None = None
    digest: Digest | None = None
    upload: str = ""
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def reads(self) -> bool:
        return self.method in _READS

    @property
    def operation(self) -> str:
        """The operation's name in metrics and audit records; empty where there is none."""
        if (
            self.kind is Kind.MANIFEST
            and self.method == "DELETE"
            and self.reference
            and self.reference.tag
        ):
            return "TagService.Untag"
        return _OPERATIONS.get((self.kind, self.method), "")

    def one(self, parameter: str) -> str | None:
        """The query parameter's first value, or None."""
        values = self.query.get(parameter)
        return values[0] if values else None


def parse_query(query: bytes) -> dict[str, list[str]]:
    """The query's parameters. Raises UriTooLong."""
    if not query:
        return {}
    try:
        return parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_LIMIT)
    except ValueError as error:
        raise UriTooLong(f"the query has more than {QUERY_LIMIT} parameters") from error


def parse(
    method: str, raw_path: bytes, query: bytes, *, host: str = "", namespaced: bool = False
) -> Request:
    """The request behind `method`, the path as it was sent, and the query.

    Raises NameUnknown (no such path), MethodNotAllowed, NameInvalid, DigestInvalid, TagInvalid,
    ManifestUnknown (reading a tag that can not be one), UriTooLong.
    """
    path = raw_path.decode("latin-1")
    if "%" in path:
        if "%2f" in path.lower():
            raise _no_such_path()
        path = unquote(path)
    if path in ("/v2/", "/v2"):
        return _allowed(Request(Kind.PING, method))
    if not path.startswith("/v2/"):
        raise _no_such_path()
    if path == "/v2/_catalog":
        return _allowed(Request(Kind.CATALOG, method, query=parse_query(query)))
    segments = path[4:].split("/")
    kind, cut = _kind_of(segments)
    name = "/".join(segments[:cut])
    if method not in ALLOWED[kind]:
        raise MethodNotAllowed(method, ALLOWED[kind])
    check_name(name, host=host, namespaced=namespaced)
    last = segments[-1]
    parameters = parse_query(query)
    if kind is Kind.MANIFEST:
        return Request(
            kind, method, name, reference=_reference(method, name, last), query=parameters
        )
    if kind in (Kind.BLOB, Kind.REFERRERS):
        return Request(kind, method, name, digest=Digest.parse(last), query=parameters)
    return Request(kind, method, name, upload=last if kind is Kind.UPLOAD else "", query=parameters)


def _kind_of(segments: list[str]) -> tuple[Kind, int]:
    """The kind, and how many segments the name has."""
    count = len(segments)
    if count >= 4 and segments[-3:] == ["blobs", "uploads", ""]:
        return Kind.UPLOADS, count - 3
    if count >= 3 and segments[-1]:
        before = segments[-2]
        if before == "manifests":
            return Kind.MANIFEST, count - 2
        if before == "tags" and segments[-1] == "list":
            return Kind.TAGS, count - 2
        if before == "referrers":
            return Kind.REFERRERS, count - 2
        if before == "blobs":
            return (Kind.UPLOADS if segments[-1] == "uploads" else Kind.BLOB), count - 2
        if before == "uploads" and segments[-3] == "blobs" and count >= 4:
            return Kind.UPLOAD, count - 3
    raise _no_such_path()


def _reference(method: str, name: str, text: str) -> Reference:
    try:
        return Reference.parse(text)
    except TagInvalid as error:
        if method == "PUT":
            raise
        raise ManifestUnknown(
            f"repository {name} has no tag {text[:200]}", {"tag": text[:200]}
        ) from error


def _allowed(request: Request) -> Request:
    if request.method not in ALLOWED[request.kind]:
        raise MethodNotAllowed(request.method, ALLOWED[request.kind])
    return request


def _no_such_path() -> NameUnknown:
    return NameUnknown("no such path in the registry API")


def is_absent_name(error: RegistryError, method: str) -> bool:
    """True for a name that no repository can have, in a request that only reads: to pull it is 404,
    not 400."""
    return isinstance(error, NameComponentsInvalid) and method in _READS
