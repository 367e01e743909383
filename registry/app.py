"""Wires the parts of one serving process into one ASGI application. Wiring only: every object comes
in through a parameter, the lifespan owns what runs beside the requests."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response as HTTPResponse
from starlette.routing import Route

from oci.digest import Digest
from oci.errors import NameUnknown, RegistryError, Unauthorized, Unsupported
from registry.config import Config
from registry.record import Observer
from registry.repository import Registry
from registry.v2.dispatch import DispatchOptions, V2Application
from registry.v2.errors import INTERNAL, as_registry_error, render
from registry.v2.exchange import Api
from registry.v2.responses import BASE_HEADERS, Header
from registry.v2.state import UploadState
from serving.health import Health
from serving.limits import RequestLimiter, request_limiter
from serving.metrics import CONTENT_TYPE, Metrics

Background = Callable[[], Awaitable[None]]
"""runs beside the requests until it is cancelled"""

READ_ONLY_WARNING: Final = "registry is read-only: pushes and deletes are refused"

log = logging.getLogger(__name__)


def create_app(
    config: Config,
    *,
    registry: Registry,
    health: Health,
    metrics: Metrics,
    observer: Observer,
    secret: str,
    background: Sequence[Background] = (),
) -> Application:
    """The application of one process. `secret` signs upload states, and is the same in all
    processes."""
    http, alauda = config.http, config.alauda
    headers: list[Header] = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, values in http.headers.items()
        for value in values
    ]
    api = Api(
        registry,
        UploadState(secret),
        host=http.host,
        relative=http.relativeurls,
        max_tags=config.tags.maxtags,
        max_repositories=config.catalog.maxentries,
    )
    v2 = V2Application(
        api,
        observer,
        reads=_limiter(config, reads=True),
        writes=_limiter(config, reads=False),
        options=DispatchOptions(
            host=urlsplit(http.host).netloc,
            namespaced=alauda.naming == "namespaced",
            headers=headers,
            warnings=(READ_ONLY_WARNING,) if config.storage.maintenance.readonly.enabled else (),
        ),
    )
    rest = _Rest(registry, metrics, config, [*BASE_HEADERS, *headers])
    return Application(v2, health, rest.starlette(_lifespan(background)), headers)


def _limiter(config: Config, *, reads: bool) -> RequestLimiter | None:
    requests = config.alauda.requests
    limits = requests.read if reads else requests.write
    return request_limiter(
        limits.maxrunning, max_in_queue=limits.maxinqueue, max_wait=limits.maxwaitinqueue
    )


class Application:
    """ASGI. What is asked most is looked at first: `/v2`, then probes; Starlette serves the
    rest."""

    def __init__(
        self, v2: V2Application, health: Health, rest: Starlette, headers: list[Header]
    ) -> None:
        self._headers = headers
        self._v2 = v2
        self._health = health
        self._rest = rest

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith("/v2/") or path == "/v2":
                await self._v2(scope, receive, send)
                return
            answer = self._health.respond(path, scope["method"])
            if answer is not None:
                status, headers, body = answer
                headers = [*headers, *self._headers]
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await self._rest(scope, receive, send)


class _Rest:
    """Metrics and administration. Without rights every caller may do all of it, but for metrics
    where a secret is set."""

    def __init__(
        self, registry: Registry, metrics: Metrics, config: Config, headers: list[Header]
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._access = config.alauda.metrics
        self._headers = headers

    def starlette(self, lifespan: Callable[[Starlette], Any]) -> Starlette:
        made = Starlette(
            routes=[
                Route("/extensions/v2/metrics", self._scrape, methods=["GET"]),
                Route("/metrics", self._scrape, methods=["GET"]),
                Route("/admin/blobs/{digest}", self._remove_blob, methods=["DELETE"]),
            ],
            exception_handlers={HTTPException: self._refused, Exception: self._failed},
            lifespan=lifespan,
        )
        # A redirect would name whatever Host the client sent.
        made.router.redirect_slashes = False
        return made

    async def _scrape(self, request: HTTPRequest) -> HTTPResponse:
        if not self._access.enabled:
            return self._answer(NameUnknown("metrics are switched off"), request)
        if self._access.secret and not hmac.compare_digest(
            request.headers.get("authorization", "").encode(),
            f"Bearer {self._access.secret}".encode(),
        ):
            return self._answer(Unauthorized("metrics need the secret as bearer token"), request)
        # Summing up over all workers reads their files.
        text = await asyncio.to_thread(self._metrics.exposition)
        response = HTTPResponse(text, media_type=CONTENT_TYPE)
        response.raw_headers += self._headers
        return response

    async def _remove_blob(self, request: HTTPRequest) -> HTTPResponse:
        try:
            await self._registry.delete_content(Digest.parse(request.path_params["digest"]))
        except Exception as error:
            known = as_registry_error(error)
            if known is None:
                raise
            return self._answer(known, request)
        response = HTTPResponse(status_code=204)
        response.raw_headers += self._headers
        return response

    async def _refused(self, request: HTTPRequest, error: Exception) -> HTTPResponse:
        if isinstance(error, HTTPException) and error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "")
            return self._answer(Unsupported(f"only {allow} is possible here"), request, allow=allow)
        return self._answer(NameUnknown("no such path"), request)

    async def _failed(self, request: HTTPRequest, error: Exception) -> HTTPResponse:
        return self._answer(INTERNAL, request)

    def _answer(self, error: RegistryError, request: HTTPRequest, allow: str = "") -> HTTPResponse:
        rendered = render(error, request.method)
        response = HTTPResponse(rendered.body, rendered.status)
        response.raw_headers += [*rendered.headers, *self._headers]
        if allow:
            response.raw_headers.append((b"allow", allow.encode("latin-1")))
        if rendered.status == 401:
            response.raw_headers.append((b"www-authenticate", b"Bearer"))
        return response


def _lifespan(background: Sequence[Background]) -> Callable[[Starlette], Any]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_kept(run)) for run in background]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return lifespan


async def _kept(run: Background) -> None:
    """A fault in what runs beside the requests must be seen, and must not end them."""
    try:
        await run()
    except Exception:
        log.exception("a background task has failed and will not run again before a restart")
