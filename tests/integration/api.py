"""The steps that the tests over HTTP take again and again."""

from __future__ import annotations

import uuid
from typing import Any

import httpx

from oci.descriptor import OCI_MANIFEST
from oci.digest import Digest
from tests.fakes.images import image

OCTETS = {"Content-Type": "application/octet-stream"}


def new_name() -> str:
    return f"it/{uuid.uuid4().hex[:12]}"


def start(client: httpx.Client, name: str, query: str = "") -> str:
    """The Location of a new upload."""
    answer = client.post(f"/v2/{name}/blobs/uploads/{query}")
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def push_blob(client: httpx.Client, name: str, content: bytes, algorithm: str = "sha256") -> Digest:
    digest = Digest.of(content, algorithm)
    answer = client.put(f"{start(client, name)}&digest={digest}", content=content, headers=OCTETS)
    assert answer.status_code == 201, answer.text
    return digest


def push_manifest(
    client: httpx.Client, name: str, reference: str, content: bytes, **headers: str
) -> httpx.Response:
    return client.put(
        f"/v2/{name}/manifests/{reference}",
        content=content,
        headers={"Content-Type": OCI_MANIFEST, **headers},
    )


def push_image(
    client: httpx.Client, name: str, tag: str, layer: bytes = b"layer", **more: Any
) -> Digest:
    for blob in (b"{}", layer):
        push_blob(client, name, blob)
    content = image(layer, **more)
    answer = push_manifest(client, name, tag, content)
    assert answer.status_code == 201, answer.text
    return Digest.of(content)


def refused(answer: httpx.Response, status: int, code: str) -> Any:
    """Checks that the answer is a refusal in the form of the specification; its first error."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    if answer.request.method == "HEAD":
        return None
    first = answer.json()["errors"][0]
    assert first["code"] == code, answer.text
    assert first["message"]
    return first
