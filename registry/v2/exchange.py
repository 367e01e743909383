"""One request on its way through the handlers: what was parsed, the headers, the body, and how to
build Locations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

from oci.errors import PaginationNumberInvalid
from registry.repository import Registry
from registry.v2.routes import Request
from registry.v2.state import UploadState
from serving.body import RequestBody

_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
"""what may stand in a Location; else it is relative"""

LIST_WHOLE: Final = 10_000
"""tags in an answer to a request that names no number"""


@dataclass(frozen=True, slots=True)
class Api:
    """What all handlers share. `host` is `http.host`, `relative` is `http.relativeurls`; the limits
    are entries a page."""

    registry: Registry
    state: UploadState
    host: str = ""
    relative: bool = True
    max_tags: int = 1000
    max_repositories: int = 1000


@dataclass
class Exchange:
    """One request. `warnings` are the texts for `Warning` headers of its answer."""

    request: Request
    scope: dict[str, Any]
    body: RequestBody
    api: Api
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.scope["headers"])

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def header_values(self, name: bytes) -> list[str]:
        """All values of a header that is a comma-separated list, over all its lines, without their
        parameters."""
        return [
            value.partition(";")[0].strip().lower()
            for key, line in self.scope["headers"]
            if key == name
            for value in line.decode("latin-1").split(",")
        ]

    def locate(self, path: str) -> bytes:
        """The value of a Location header for `path`."""
        if self.api.host:
            return f"{self.api.host.rstrip('/')}{path}".encode()
        if self.api.relative:
            return path.encode()
        return f"{self._outer_address()}{path}".encode("latin-1", "replace")

    def _outer_address(self) -> str:
        """Scheme and host as the client sees them: from a proxy's headers, else from the request
        itself."""
        forwarded = dict(
            part.strip().lower().partition("=")[::2]
            for part in (self.header(b"forwarded") or "").split(",")[0].split(";")
            if "=" in part
        )
        scheme = forwarded.get("proto") or self.header(b"x-forwarded-proto") or self.scope["scheme"]
        host = (
            forwarded.get("host") or self.header(b"x-forwarded-host") or self.header(b"host") or ""
        )
        scheme = scheme.split(",")[0].strip().lower()
        host = host.split(",")[0].strip().strip('"')
        if scheme not in ("http", "https"):
            scheme = self.scope["scheme"]
        if _HOST.fullmatch(host) is None:
            host = self.header(b"host") or ""
        return f"{scheme}://{host}" if _HOST.fullmatch(host) else ""

    def page_size(self, most: int, default: int) -> int:
        """The number of entries that `n` asks for, at most `most`. Raises
        PaginationNumberInvalid."""
        text = self.request.one("n")
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise PaginationNumberInvalid(
                "n must be a number of entries, 0 or more", {"n": text[:32]}
            )
        return min(int(text), most)

    def next_link(self, path: str, size: int, names: Sequence[str]) -> tuple[bytes, bytes]:
        """The Link header to the page after `names` (RFC 8288)."""
        query = f"n={size}&last={quote(names[-1], safe='')}"
        return b"link", f'<{path}?{query}>; rel="next"'.encode()
