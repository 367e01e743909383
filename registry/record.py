"""What is known of one request when it is over: the one value that access log, audit log and
metrics are fed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from oci.errors import RegistryError


@dataclass(slots=True)
class RequestRecord:
    """Times in seconds, sizes in bytes. `status` is 499 for a client that went away before its
    answer."""

    scope: dict[str, Any]
    id: str
    operation: str = ""
    name: str = ""
    reference: str = ""
    digest: str = ""
    upload: str = ""
    status: int = 0
    content_type: str = ""
    error: RegistryError | None = None
    seconds: float = 0.0
    first_byte: float = 0.0
    received: int = 0
    sent: int = 0


class Observer(Protocol):
    """Is told of each request at its begin and at its end. Must not raise."""

    def begin(self, record: RequestRecord) -> None: ...

    def end(self, record: RequestRecord) -> None: ...
