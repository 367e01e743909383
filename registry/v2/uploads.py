"""Blob uploads: start, mount, chunks, commit, status, cancel (OCI distribution-spec, end-4 to
end-6, end-11 to end-14)."""

from __future__ import annotations

from dataclasses import replace

from oci.descriptor import OCTET_STREAM
from oci.digest import ALGORITHMS, SHA256, Digest
from oci.errors import DigestInvalid, NameInvalid, RangeInvalid, UploadContentInvalid
from oci.manifest import media_type_of
from oci.reference import check_name
from registry.repository import Upload
from registry.v2.errors import render
from registry.v2.exchange import Exchange
from registry.v2.ranges import parse_content_range
from registry.v2.responses import Header, Response


def _where(exchange: Exchange, upload: Upload) -> list[Header]:
    """Location, Range and Docker-Upload-UUID of an open upload."""
    path = f"/v2/{upload.name}/blobs/uploads/{upload.id}?_state={exchange.api.state.sign(upload)}"
    return [
        (b"location", exchange.locate(path)),
        (b"range", b"0-%d" % max(upload.size - 1, 0)),
        (b"docker-upload-uuid", upload.id.encode()),
    ]


def _created(exchange: Exchange, name: str, digest: Digest) -> Response:
    location = exchange.locate(f"/v2/{name}/blobs/{digest}")
    return Response(201, [(b"location", location), (b"docker-content-digest", digest.encode())])


async def start(exchange: Exchange) -> Response:
    """POST: a mount, a whole blob in one request, or a new upload."""
    request, registry = exchange.request, exchange.api.registry
    mount = request.one("mount")
    if mount is not None:
        digest = _mountable(mount)
        source, usable = _source(exchange)
        if (
            digest is not None
            and usable
            and await registry.mount_blob(request.name, digest, source)
        ):
            return _created(exchange, request.name, digest)
    algorithm = request.one("digest-algorithm") or SHA256
    if algorithm not in ALGORITHMS:
        raise DigestInvalid("digest-algorithm must be sha256 or sha512", algorithm[:64])
    whole = request.one("digest")
    if whole is not None and mount is None:
        digest = Digest.parse(whole)
        upload = await registry.start_upload(request.name, digest.algorithm)
        return await _commit(exchange, upload, digest)
    upload = await registry.start_upload(request.name, algorithm)
    return Response(202, _where(exchange, upload))


def _mountable(text: str) -> Digest | None:
    """What cannot be mounted is pushed instead: a bad digest is no error here."""
    try:
        return Digest.parse(text)
    except DigestInvalid:
        return None


def _source(exchange: Exchange) -> tuple[str | None, bool]:
    """The repository to mount from (None: any), and whether it can be one at all."""
    source = exchange.request.one("from")
    if source is None:
        return None, True
    try:
        return check_name(source), True
    except NameInvalid:
        return None, False


def _continued(exchange: Exchange) -> Upload:
    """The upload as the request's state and Content-Range say it stands.

    A state from before the last chunk is good together with a Content-Range that begins where the
    upload stands now.
    """
    request = exchange.request
    upload = exchange.api.state.verify(request.one("_state"), request.name, request.upload)
    start = parse_content_range(exchange.header(b"content-range"), exchange.body.length)
    return upload if start is None else replace(upload, size=start)


async def _check_expected(exchange: Exchange, upload: Upload) -> None:
    """A client that waits for `100 Continue` is refused before it sends its chunk, not after."""
    if exchange.headers.get(b"expect"):
        standing = await exchange.api.registry.upload_status(upload.name, upload.id)
        if standing.size != upload.size:
            raise RangeInvalid(
                f"the upload stands at byte {standing.size}", {"size": standing.size}
            )


async def _out_of_order(exchange: Exchange, error: RangeInvalid) -> Response:
    """416 with where the upload stands, from which the client can go on."""
    request = exchange.request
    standing = await exchange.api.registry.upload_status(request.name, request.upload)
    upload = replace(
        exchange.api.state.verify(request.one("_state"), request.name, request.upload),
        size=standing.size,
    )
    response = render(error, request.method)
    response.headers += _where(exchange, upload)
    return response


async def patch(exchange: Exchange) -> Response:
    content_type = media_type_of(exchange.header(b"content-type"))
    if content_type not in (None, OCTET_STREAM):
        raise UploadContentInvalid(
            f"the Content-Type of a chunk is {OCTET_STREAM}", content_type[:100]
        )
    try:
        upload = _continued(exchange)
        await _check_expected(exchange, upload)
        appended = await exchange.api.registry.append_upload(upload, exchange.body)
    except RangeInvalid as error:
        return await _out_of_order(exchange, error)
    return Response(202, _where(exchange, appended))


async def put(exchange: Exchange) -> Response:
    text = exchange.request.one("digest")
    if text is None:
        raise DigestInvalid(
            "the closing PUT of an upload must name its digest: &digest=sha256:<hex>"
        )
    digest = Digest.parse(text)
    try:
        upload = _continued(exchange)
        await _check_expected(exchange, upload)
        return await _commit(exchange, upload, digest)
    except RangeInvalid as error:
        return await _out_of_order(exchange, error)


async def _commit(exchange: Exchange, upload: Upload, digest: Digest) -> Response:
    await exchange.api.registry.finish_upload(upload, exchange.body, digest)
    return _created(exchange, upload.name, digest)


async def status(exchange: Exchange) -> Response:
    request = exchange.request
    upload = await exchange.api.registry.upload_status(request.name, request.upload)
    return Response(204, _where(exchange, upload))


async def cancel(exchange: Exchange) -> Response:
    request = exchange.request
    exchange.api.state.verify(request.one("_state"), request.name, request.upload)
    await exchange.api.registry.cancel_upload(request.name, request.upload)
    return Response(204)
