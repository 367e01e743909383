"""Blob reads and deletes (OCI distribution-spec, end-2 and end-10)."""

from __future__ import annotations

from typing import Final

from oci.digest import Digest
from oci.errors import RangeInvalid
from registry.v2.errors import render
from registry.v2.exchange import Exchange
from registry.v2.ranges import Unsatisfiable, parse_range
from registry.v2.responses import Header, Response

_FIXED: Final[tuple[Header, ...]] = (
    (b"content-type", b"application/octet-stream"),
    (b"accept-ranges", b"bytes"),
    (b"cache-control", b"max-age=31536000, private"),
)


def _headers(digest: Digest) -> list[Header]:
    text = digest.encode()
    return [*_FIXED, (b"docker-content-digest", text), (b"etag", b'"' + text + b'"')]


def names_digest(header: str | None, digest: Digest) -> bool:
    """True if an If-None-Match header has the digest among its entity tags (quoted, weak or bare),
    or is `*`."""
    if header is None:
        return False
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in header.split(","))
    return any(tag in (digest, "*") for tag in tags)


async def get_blob(exchange: Exchange) -> Response:
    request, registry = exchange.request, exchange.api.registry
    name, digest = request.name, request.digest
    assert digest is not None
    if request.method == "HEAD":
        size = await registry.stat_blob(name, digest)
        return Response(200, _headers(digest), length=size)
    range_header = exchange.header(b"range")
    if names_digest(exchange.header(b"if-none-match"), digest):
        await registry.stat_blob(name, digest)
        return Response(304, _headers(digest))
    if range_header is None:
        address = await registry.blob_redirect(name, digest, "GET")
        if address is not None:
            return _redirect(digest, address)
    blob = await registry.open_blob(name, digest)
    try:
        if_range = exchange.header(b"if-range")
        if if_range is not None and if_range.strip().strip('"') != digest:
            range_header = None
        try:
            part = parse_range(range_header, blob.size)
        except Unsatisfiable:
            blob.close()
            return _unsatisfiable(blob.size, request.method)
        if part is None:
            if blob.content is not None:
                return Response(200, _headers(digest), blob.content)
            return Response(200, _headers(digest), length=blob.size, blob=blob)
        address = await registry.blob_redirect(name, digest, "GET")
        if address is not None:
            blob.close()
            return _redirect(digest, address)
        headers = _headers(digest)
        last = part.start + part.length - 1
        headers.append((b"content-range", b"bytes %d-%d/%d" % (part.start, last, blob.size)))
        if blob.content is not None:
            return Response(206, headers, blob.content[part.start : last + 1])
        return Response(206, headers, length=part.length, blob=blob, part=part)
    except BaseException:
        blob.close()
        raise


def _redirect(digest: Digest, address: str) -> Response:
    return Response(
        307, [(b"location", address.encode()), (b"docker-content-digest", digest.encode())]
    )


def _unsatisfiable(size: int, method: str) -> Response:
    response = render(
        RangeInvalid(f"the blob has {size} bytes, none of them in the range", {"size": size}),
        method,
    )
    response.headers.append((b"content-range", b"bytes */%d" % size))
    return response


async def delete_blob(exchange: Exchange) -> Response:
    request = exchange.request
    assert request.digest is not None
    await exchange.api.registry.delete_blob(request.name, request.digest)
    return Response(202)
