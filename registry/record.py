"""What is known of one request when it is over: the one value that access log, audit log and
metrics are fed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from oci.errors import RegistryError

CLIENT_CLOSED: Final = 499
"""the status logged for a client that went away: no answer could be sent"""


@dataclass(slots=True)
class RequestRecord:
    """Times in seconds, sizes in bytes. `status` is CLIENT_CLOSED for a client that went away
    before its answer."""

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
    """Is told of each request: when its head is there, when it is parsed, when it is over. Must not
    raise."""

    def started(self, record: RequestRecord) -> None: ...

    def parsed(self, record: RequestRecord) -> None: ...

    def ended(self, record: RequestRecord) -> None: ...
