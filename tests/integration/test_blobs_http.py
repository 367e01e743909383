import random

import httpx
import pytest

from oci.digest import Digest
from tests.e2e.server import Server
from tests.integration.api import new_name, push_blob, refused

CONTENT = random.Random(3).randbytes(300_000)


@pytest.mark.parametrize("content", [b"", b"small", CONTENT], ids=["empty", "small", "large"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_comes_back_with_its_headers(
    client: httpx.Client, content: bytes, algorithm: str
) -> None:
    name = new_name()
    digest = push_blob(client, name, content, algorithm)
    got, head = (client.request(method, f"/v2/{name}/blobs/{digest}") for method in ("GET", "HEAD"))
    assert got.content == content
    assert head.content == b""
    for answer in (got, head):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-length"] == str(len(content))
        assert answer.headers["docker-content-digest"] == digest
        assert answer.headers["etag"] == f'"{digest}"'
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["cache-control"] == "max-age=31536000, private"
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("content", [CONTENT[:1000], CONTENT], ids=["inline", "file"])
def test_ranges_are_the_slices_that_they_say(client: httpx.Client, content: bytes) -> None:
    name = new_name()
    digest = push_blob(client, name, content)
    size = len(content)
    for header, part in [
        ("bytes=0-0", content[:1]),
        (f"bytes=10-{size}", content[10:]),
        ("bytes=100-199", content[100:200]),
        ("bytes=-7", content[-7:]),
        ("bytes=5-", content[5:]),
    ]:
        answer = client.get(f"/v2/{name}/blobs/{digest}", headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, part)
        start = content.index(part) if len(part) > 1 else 0
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{size}"


@pytest.mark.parametrize("header", ["bytes=500-0", "bytes=300000-", "bytes=-0"])
def test_a_range_without_a_byte_is_416_and_names_the_size(
    client: httpx.Client, header: str
) -> None:
    name = new_name()
    digest = push_blob(client, name, CONTENT)
    answer = client.get(f"/v2/{name}/blobs/{digest}", headers={"Range": header})
    refused(answer, 416, "RANGE_INVALID")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_if_range_with_another_tag_gives_the_whole(client: httpx.Client) -> None:
    name = new_name()
    digest = push_blob(client, name, b"0123456789")
    path = f"/v2/{name}/blobs/{digest}"
    for etag, status in [(f'"{digest}"', 206), ('"other"', 200)]:
        headers = {"Range": "bytes=2-3", "If-Range": etag}
        assert client.get(path, headers=headers).status_code == status


def test_a_blob_that_the_client_has_is_304(client: httpx.Client) -> None:
    name = new_name()
    digest = push_blob(client, name, b"x")
    answer = client.get(f"/v2/{name}/blobs/{digest}", headers={"If-None-Match": f'"{digest}"'})
    assert (answer.status_code, answer.content) == (304, b"")


def test_absent_blobs_and_bad_digests_are_refused(client: httpx.Client) -> None:
    name = new_name()
    absent = Digest.of(b"absent")
    for method in ("GET", "HEAD", "DELETE"):
        refused(client.request(method, f"/v2/{name}/blobs/{absent}"), 404, "BLOB_UNKNOWN")
        for bad in ("sha256:x", f"sha256:{absent.hex.upper()}", "md5:" + "a" * 32):
            refused(client.request(method, f"/v2/{name}/blobs/{bad}"), 400, "DIGEST_INVALID")


def test_a_deleted_blob_is_404_on_every_process_at_once(client: httpx.Client) -> None:
    name = new_name()
    for content in (b"", b"x"):
        digest = push_blob(client, name, content)
        assert client.delete(f"/v2/{name}/blobs/{digest}").status_code == 202
        for _ in range(4):
            with httpx.Client(base_url=client.base_url) as fresh:
                assert fresh.head(f"/v2/{name}/blobs/{digest}").status_code == 404


def test_paths_with_encoded_colons_are_taken(client: httpx.Client) -> None:
    name = new_name()
    digest = push_blob(client, name, b"x")
    assert client.get(f"/v2/{name}/blobs/{digest.replace(':', '%3A')}").content == b"x"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", f"/v2/a/blobs/{Digest.of(b'')}", "GET, HEAD, DELETE"),
        ("DELETE", "/v2/a/tags/list", "GET, HEAD"),
        ("GET", "/v2/a/blobs/uploads/", "POST"),
        ("PATCH", "/v2/", "GET, HEAD"),
        ("OPTIONS", "/v2/_catalog", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_names_the_right_ones(
    client: httpx.Client, method: str, path: str, allow: str
) -> None:
    answer = client.request(method, path)
    refused(answer, 405, "UNSUPPORTED")
    assert answer.headers["allow"] == allow


def test_unknown_paths_and_bad_names_are_refused(client: httpx.Client) -> None:
    refused(client.get("/v2/x"), 404, "NAME_UNKNOWN")
    refused(client.get("/v2/UPPER/tags/list"), 400, "NAME_INVALID")
    refused(client.get(f"/v2/{'a' * 300}/tags/list"), 400, "NAME_INVALID")


def test_request_ids_are_given_back(client: httpx.Client) -> None:
    assert client.get("/v2/", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    forged = client.get("/v2/", headers={"X-Request-Id": "a b"}).headers["x-request-id"]
    assert len(forged) == 32


def test_the_base_answers(client: httpx.Client) -> None:
    for path in ("/v2/", "/v2"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (200, {})
        assert answer.headers["content-type"] == "application/json"


def test_health_metrics_and_root_answer(client: httpx.Client, server: Server) -> None:
    for path in ("/", "/livez", "/readyz", "/healthz"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["cache-control"] == "no-cache"
    for path in ("/metrics", "/extensions/v2/metrics"):
        text = client.get(path).text
        assert "imageregistry_http_requests_total" in text
        assert "imageregistry_storage_duration_seconds" in text


def test_admin_removes_the_bytes_of_a_blob(client: httpx.Client) -> None:
    name = new_name()
    digest = push_blob(client, name, b"to be removed" + name.encode())
    for _ in range(2):
        assert client.delete(f"/admin/blobs/{digest}").status_code == 204
    assert client.head(f"/v2/{name}/blobs/{digest}").status_code == 404
    assert client.delete("/admin/blobs/sha256:x").status_code == 400
