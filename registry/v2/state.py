"""The signed state of an upload, carried by the client from one request's Location to the next.

`_state` = base64url(HMAC-SHA256(secret, J) || J), J = JSON with Name, UUID, Offset, StartedAt: the
form of the CNCF registry, so that with the same secret either can go on with the other's uploads.
`Algorithm` is added where the client asked for another hash than sha256. Any process that has the
secret can take the next request.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from typing import Final

import orjson

from oci.digest import ALGORITHMS, SHA256
from oci.errors import BlobUploadInvalid
from registry.repository import Upload

_SIGNATURE: Final = 32
_LIMIT: Final = 2048
"""characters; a state with the longest name has about 900"""


class UploadState:
    """Signs and checks upload states with one secret, which all processes and replicas share."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def sign(self, upload: Upload) -> str:
        state: dict[str, object] = {
            "Name": upload.name,
            "UUID": upload.id,
            "Offset": upload.size,
            "StartedAt": upload.started_at,
        }
        if upload.algorithm != SHA256:
            state["Algorithm"] = upload.algorithm
        payload = orjson.dumps(state)
        signature = hmac.digest(self._secret, payload, "sha256")
        return base64.urlsafe_b64encode(signature + payload).decode()

    def verify(self, token: str | None, name: str, upload: str) -> Upload:
        """The upload as it stood when the token was made. Raises BlobUploadInvalid unless it was
        made for this repository and upload, with our secret."""
        state = self._open(token)
        if state is None or state.get("Name") != name or state.get("UUID") != upload:
            raise BlobUploadInvalid(
                "the upload's _state is missing, or was not made for this upload: start again"
            )
        offset, algorithm = state.get("Offset"), state.get("Algorithm", SHA256)
        if not isinstance(offset, int) or offset < 0 or algorithm not in ALGORITHMS:
            raise BlobUploadInvalid("the upload's _state is of another form: start again")
        return Upload(name, upload, str(state.get("StartedAt", "")), offset, algorithm)

    def _open(self, token: str | None) -> dict[str, object] | None:
        if not token or len(token) > _LIMIT:
            return None
        try:
            raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            return None
        signature, payload = raw[:_SIGNATURE], raw[_SIGNATURE:]
        if not hmac.compare_digest(signature, hmac.digest(self._secret, payload, "sha256")):
            return None
        try:
            state = json.loads(payload)
        except ValueError:
            return None
        return state if isinstance(state, dict) else None
