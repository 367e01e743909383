"""Manifests by tag and by digest (OCI distribution-spec, end-3, end-7, end-9)."""

from __future__ import annotations

from typing import Final

from oci.descriptor import IMAGES, INDEXES
from oci.digest import Digest
from oci.errors import (
    DigestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    NameUnknown,
    PreconditionFailed,
    TooManyTags,
)
from oci.manifest import MANIFEST_LIMIT, media_type_of, parse_manifest
from oci.reference import Reference, check_tag
from registry.repository import ALWAYS, Condition, ManifestPush, StoredManifest
from registry.v2.blobs import names_digest
from registry.v2.exchange import Exchange
from registry.v2.responses import Header, Response
from serving.body import BodyTooLarge

TAGS_LIMIT: Final = 100
"""tags in one push; each costs a rename and a folder sync"""

_ANYTHING: Final = frozenset({"*/*", "application/*"})


async def get_manifest(exchange: Exchange) -> Response:
    """GET and HEAD. Stored bytes are served as they are, whatever the client accepts; only a client
    that asks by tag and knows no index gets the image for linux/amd64 out of one."""
    request = exchange.request
    assert request.reference is not None
    found = await exchange.api.registry.get_manifest(request.name, request.reference)
    if request.reference.tag is not None and found.manifest.media_type in INDEXES:
        found = await _for_old_client(exchange, found)
    digest = found.digest.encode()
    headers: list[Header] = [(b"docker-content-digest", digest), (b"etag", b'"' + digest + b'"')]
    if names_digest(exchange.header(b"if-none-match"), found.digest):
        return Response(304, headers)
    headers.append((b"content-type", found.manifest.media_type.encode()))
    return Response(200, headers, found.content)


async def _for_old_client(exchange: Exchange, index: StoredManifest) -> StoredManifest:
    accepted = set(exchange.header_values(b"accept"))
    if not accepted or accepted & _ANYTHING or accepted & INDEXES or not accepted & IMAGES:
        return index
    child = index.manifest.child_for("linux", "amd64")
    if child is None:
        return index
    try:
        return await exchange.api.registry.get_manifest(
            exchange.request.name, Reference(None, child.digest)
        )
    except (ManifestUnknown, NameUnknown):
        return index


async def put_manifest(exchange: Exchange) -> Response:
    request, body = exchange.request, exchange.body
    reference = request.reference
    assert reference is not None
    tags = _tags(exchange, reference)
    if body.length is not None and body.length > MANIFEST_LIMIT:
        raise ManifestTooLarge(
            f"a manifest has at most {MANIFEST_LIMIT} bytes", {"size": body.length}
        )
    try:
        content = await body.read(MANIFEST_LIMIT)
    except BodyTooLarge as error:
        raise ManifestTooLarge(f"a manifest has at most {MANIFEST_LIMIT} bytes") from error
    manifest = parse_manifest(content, media_type_of(exchange.header(b"content-type")))
    if reference.digest is None:
        digest = Digest.of(content)
    else:
        digest = Digest.of(content, reference.digest.algorithm)
        if digest != reference.digest:
            raise DigestInvalid(
                f"the manifest has the digest {digest}, the path says {reference.digest}",
                {"received": digest},
            )
    push = ManifestPush(digest, content, manifest, tags, _condition(exchange))
    exchange.warnings += await exchange.api.registry.put_manifest(request.name, push)
    headers: list[Header] = [
        (b"location", exchange.locate(f"/v2/{request.name}/manifests/{reference}")),
        (b"docker-content-digest", digest.encode()),
    ]
    if manifest.subject is not None:
        headers.append((b"oci-subject", manifest.subject.digest.encode()))
    if reference.digest is not None:
        headers += [(b"oci-tag", tag.encode()) for tag in tags]
    return Response(201, headers)


def _tags(exchange: Exchange, reference: Reference) -> tuple[str, ...]:
    """The tags that the push sets: the one in the path, or with a digest there those of `?tag=`,
    each once."""
    if reference.tag is not None:
        return (reference.tag,)
    tags = tuple(dict.fromkeys(exchange.request.query.get("tag", ())))
    if len(tags) > TAGS_LIMIT:
        raise TooManyTags(f"one push sets at most {TAGS_LIMIT} tags", {"tags": len(tags)})
    return tuple(check_tag(tag) for tag in tags)


def _condition(exchange: Exchange) -> Condition:
    """If-Match and If-None-Match: * of a write to a tag (RFC 9110, 13.1)."""
    matches, absent = exchange.header(b"if-match"), exchange.header(b"if-none-match")
    if matches is None and absent is None:
        return ALWAYS
    digests = None
    if matches is not None:
        digests = tuple(Digest(tag.strip().strip('"')) for tag in matches.split(","))
        if "*" in digests:
            raise PreconditionFailed("If-Match takes digests here, not *")
    return Condition(digests, absent is not None and absent.strip() == "*")


async def delete_manifest(exchange: Exchange) -> Response:
    request, registry = exchange.request, exchange.api.registry
    reference = request.reference
    assert reference is not None
    if reference.tag is not None:
        await registry.delete_tag(request.name, reference.tag, _condition(exchange))
    else:
        assert reference.digest is not None
        await registry.delete_manifest(request.name, reference.digest)
    return Response(202)
