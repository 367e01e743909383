"""Tags, catalog and referrers (OCI distribution-spec, end-8 and end-12; Docker's catalog)."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import orjson

from oci.descriptor import OCI_INDEX
from registry.repository import Referrer
from registry.v2.exchange import LIST_WHOLE, Exchange
from registry.v2.responses import JSON, Response

CATALOG_PAGE: Final = 100
"""repositories in an answer to a request that names no number"""

REFERRERS_BYTES: Final = 4 * 1024 * 1024
"""bytes of one referrers answer: what clients take as an index"""

_HEAD: Final = b'{"schemaVersion":2,"mediaType":"' + OCI_INDEX.encode() + b'","manifests":['


async def list_tags(exchange: Exchange) -> Response:
    request, api = exchange.request, exchange.api
    size = exchange.page_size(api.max_tags, LIST_WHOLE)
    page = await api.registry.tags(request.name, request.one("last") or "", size)
    response = Response(200, [JSON], orjson.dumps({"name": request.name, "tags": page.names}))
    if page.more and page.names:
        response.headers.append(
            exchange.next_link(f"/v2/{request.name}/tags/list", size, page.names)
        )
    return response


async def catalog(exchange: Exchange) -> Response:
    api = exchange.api
    size = exchange.page_size(api.max_repositories, min(CATALOG_PAGE, api.max_repositories))
    page = await api.registry.repositories(exchange.request.one("last") or "", size)
    response = Response(200, [JSON], orjson.dumps({"repositories": page.names}))
    if page.more and page.names:
        response.headers.append(exchange.next_link("/v2/_catalog", size, page.names))
    return response


def _entry(referrer: Referrer) -> bytes:
    entry: dict[str, object] = {
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size,
    }
    if referrer.artifact_type:
        entry["artifactType"] = referrer.artifact_type
    if referrer.annotations:
        entry["annotations"] = referrer.annotations
    return orjson.dumps(entry)


async def list_referrers(exchange: Exchange) -> Response:
    """An index of all referrers; one above the limit goes on in a next page, after the last digest
    of this one."""
    request = exchange.request
    assert request.digest is not None
    wanted, after = request.one("artifactType"), request.one("last") or ""
    referrers = await exchange.api.registry.referrers(request.name, request.digest)
    headers = [(b"content-type", OCI_INDEX.encode())]
    if wanted:
        referrers = [one for one in referrers if one.artifact_type == wanted]
        headers.append((b"oci-filters-applied", b"artifactType"))
    entries: list[bytes] = []
    total = 0
    previous = ""
    for referrer in referrers:
        if referrer.digest <= after:
            continue
        entry = _entry(referrer)
        total += len(entry) + 1
        if total > REFERRERS_BYTES and entries:
            query = f"last={quote(previous, safe='')}"
            if wanted:
                query += f"&artifactType={quote(wanted, safe='')}"
            headers.append(
                (
                    b"link",
                    f'</v2/{request.name}/referrers/{request.digest}?{query}>; rel="next"'.encode(),
                )
            )
            break
        entries.append(entry)
        previous = referrer.digest
    return Response(200, headers, _HEAD + b",".join(entries) + b"]}")
