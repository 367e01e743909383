"""The ASGI application behind `/v2`: parse, wait for a place, hand to the one handler, send, and
tell the observer.

It is dispatched from the raw scope: routing by path patterns would cost more than most requests
here do. Rights are asked between parsing and handling, from the parsed request alone, before
anything is looked up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

from oci.errors import RegistryError, TooManyRequests
from registry.record import CLIENT_CLOSED, Observer, RequestRecord
from registry.v2 import blobs, lists, manifests, uploads
from registry.v2.errors import INTERNAL, as_registry_error, render
from registry.v2.exchange import Api, Exchange
from registry.v2.responses import (
    BASE_HEADERS,
    JSON,
    ZERO_COPY,
    Header,
    Response,
    Send,
    send_response,
)
from registry.v2.routes import Kind, Request, parse
from serving.body import GONE, BodyTimeout, ClientDisconnected, RequestBody
from serving.limits import LimitExceeded, RequestLimiter
from serving.logging import request_id
from serving.request_body import body_of

Handler = Callable[[Exchange], Awaitable[Response]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

WARNING_BYTES: Final = 4096
"""bytes of all Warning headers of one answer"""

log = logging.getLogger(__name__)


async def _ping(exchange: Exchange) -> Response:
    return Response(200, [JSON], b"{}")


HANDLERS: Final[Mapping[tuple[Kind, str], Handler]] = {
    (Kind.PING, "GET"): _ping,
    (Kind.PING, "HEAD"): _ping,
    (Kind.BLOB, "GET"): blobs.get_blob,
    (Kind.BLOB, "HEAD"): blobs.get_blob,
    (Kind.BLOB, "DELETE"): blobs.delete_blob,
    (Kind.MANIFEST, "GET"): manifests.get_manifest,
    (Kind.MANIFEST, "HEAD"): manifests.get_manifest,
    (Kind.MANIFEST, "PUT"): manifests.put_manifest,
    (Kind.MANIFEST, "DELETE"): manifests.delete_manifest,
    (Kind.UPLOADS, "POST"): uploads.start,
    (Kind.UPLOAD, "GET"): uploads.status,
    (Kind.UPLOAD, "HEAD"): uploads.status,
    (Kind.UPLOAD, "PATCH"): uploads.patch,
    (Kind.UPLOAD, "PUT"): uploads.put,
    (Kind.UPLOAD, "DELETE"): uploads.cancel,
    (Kind.TAGS, "GET"): lists.list_tags,
    (Kind.TAGS, "HEAD"): lists.list_tags,
    (Kind.REFERRERS, "GET"): lists.list_referrers,
    (Kind.REFERRERS, "HEAD"): lists.list_referrers,
    (Kind.CATALOG, "GET"): lists.catalog,
    (Kind.CATALOG, "HEAD"): lists.catalog,
}


@dataclass(frozen=True, slots=True)
class DispatchOptions:
    """`host` counts into the length of names; `headers` go with every answer; `warnings` with every
    one of /v2."""

    host: str = ""
    namespaced: bool = False
    headers: Sequence[Header] = ()
    warnings: Sequence[str] = ()


class V2Application:
    """ASGI, for paths that begin with `/v2`."""

    def __init__(
        self,
        api: Api,
        observer: Observer,
        *,
        reads: RequestLimiter | None = None,
        writes: RequestLimiter | None = None,
        options: DispatchOptions = DispatchOptions(),  # frozen, without state
    ) -> None:
        self._api = api
        self._observer = observer
        self._reads = reads
        self._writes = writes
        self._options = options
        self._headers: list[Header] = [*BASE_HEADERS, *options.headers]

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        started = perf_counter()
        record = RequestRecord(scope, _request_id(scope))
        body = body_of(scope, receive)
        self._observer.started(record)
        try:
            await self._answer(scope, body, send, record, started)
        except BodyTimeout:
            raise
        except ClientDisconnected:
            # Raised on: the server closes a connection whose client has only half gone.
            record.status = CLIENT_CLOSED
            raise
        finally:
            record.seconds = perf_counter() - started
            record.received = body.received
            self._observer.ended(record)

    async def _answer(
        self,
        scope: dict[str, Any],
        body: RequestBody,
        send: Send,
        record: RequestRecord,
        started: float,
    ) -> None:
        method = scope["method"]
        try:
            request = self._parse(scope, record)
            limiter = self._reads if request.reads else self._writes
            if limiter is None:
                await self._handle(request, scope, body, send, record, started)
                return
            await _place(limiter, scope)
            try:
                await self._handle(request, scope, body, send, record, started)
            finally:
                limiter.leave()
        except Exception as error:
            if isinstance(error, ClientDisconnected) and not isinstance(error, BodyTimeout):
                raise
            if record.status:
                raise
            known = _known(error)
            if known is None:
                log.exception("request %s failed: %s %s", record.id, method, scope["path"])
                known = INTERNAL
            record.error = known
            await self._send(render(known, method), method, (), scope, send, record, started)

    def _parse(self, scope: dict[str, Any], record: RequestRecord) -> Request:
        options = self._options
        request = parse(
            scope["method"],
            scope["raw_path"],
            scope["query_string"],
            host=options.host,
            namespaced=options.namespaced,
        )
        record.operation = request.operation
        record.name = request.name
        record.upload = request.upload
        if request.reference is not None:
            record.reference = str(request.reference)
        if request.digest is not None:
            record.digest = request.digest
        self._observer.parsed(record)
        return request

    async def _handle(
        self,
        request: Request,
        scope: dict[str, Any],
        body: RequestBody,
        send: Send,
        record: RequestRecord,
        started: float,
    ) -> None:
        exchange = Exchange(request, scope, body, self._api)
        response = await HANDLERS[request.kind, request.method](exchange)
        warnings = (*exchange.warnings, *self._options.warnings)
        await self._send(response, request.method, warnings, scope, send, record, started)

    async def _send(
        self,
        response: Response,
        method: str,
        warnings: Sequence[str],
        scope: dict[str, Any],
        send: Send,
        record: RequestRecord,
        started: float,
    ) -> None:
        response.headers += self._headers
        response.headers.append((b"x-request-id", record.id.encode()))
        if warnings:
            response.headers += warning_headers(warnings)
        record.first_byte = perf_counter() - started
        record.status = response.status
        record.content_type = _content_type(response)
        zero_copy = ZERO_COPY in scope.get("extensions", {})
        record.sent = await send_response(
            response, send, zero_copy=zero_copy, head=method == "HEAD"
        )


async def _place(limiter: RequestLimiter, scope: dict[str, Any]) -> None:
    """Waits for a place among the running requests. Raises LimitExceeded, and ClientDisconnected
    where the client left the queue."""
    if limiter.try_enter():
        return
    gone = scope.get("extensions", {}).get(GONE)
    if gone is None:
        await limiter.enter()
        return
    entering, leaving = asyncio.ensure_future(limiter.enter()), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({entering, leaving}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if entering.done() and not entering.cancelled() and entering.exception() is None:
            limiter.leave()
        raise
    finally:
        leaving.cancel()
        if not entering.done():
            entering.cancel()
    if entering.cancelled() or not entering.done():
        raise ClientDisconnected("the client left before its turn")
    entering.result()


def _content_type(response: Response) -> str:
    for key, value in response.headers:
        if key == b"content-type":
            return value.decode("latin-1")
    return ""


def _known(error: Exception) -> RegistryError | None:
    if isinstance(error, LimitExceeded):
        return TooManyRequests("too many requests are running: try again later")
    return as_registry_error(error)


def _request_id(scope: dict[str, Any]) -> str:
    for key, value in scope["headers"]:
        if key == b"x-request-id":
            return request_id(value)
    return request_id(None)


def warning_headers(warnings: Sequence[str]) -> list[Header]:
    """`Warning: 299 - "text"` for each text, as many as fit (OCI distribution-spec, "Warnings")."""
    headers = []
    left = WARNING_BYTES
    for text in warnings:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        value = f'299 - "{quoted}"'.encode("ascii", "replace")
        left -= len(value)
        if left < 0:
            break
        headers.append((b"warning", value))
    return headers
