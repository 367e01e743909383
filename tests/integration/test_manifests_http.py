import json

import httpx
import pytest

from oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from oci.digest import Digest
from tests.fakes.images import descriptor, image, index
from tests.integration.api import new_name, push_blob, push_image, push_manifest, refused


def test_a_manifest_comes_back_as_it_was_sent(client: httpx.Client) -> None:
    name = new_name()
    digest = push_image(client, name, "v1")
    for reference in ("v1", digest):
        for method in ("GET", "HEAD"):
            answer = client.request(method, f"/v2/{name}/manifests/{reference}")
            assert answer.status_code == 200
            assert answer.headers["content-type"] == OCI_MANIFEST
            assert answer.headers["docker-content-digest"] == digest
            assert answer.headers["etag"] == f'"{digest}"'
            assert answer.headers["content-length"] == str(len(image(b"layer")))
            assert answer.content == (image(b"layer") if method == "GET" else b"")


def test_a_push_answers_where_the_manifest_is(client: httpx.Client) -> None:
    name = new_name()
    push_blob(client, name, b"{}")
    content = image()
    answer = push_manifest(client, name, "v1", content)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v2/{name}/manifests/v1"
    assert answer.headers["docker-content-digest"] == Digest.of(content)


def test_one_push_sets_many_tags(client: httpx.Client) -> None:
    name = new_name()
    push_blob(client, name, b"{}")
    content = image()
    tags = [f"t{at:02}" for at in range(12)]
    query = "&".join(f"tag={tag}" for tag in (*tags, tags[0]))
    answer = push_manifest(client, name, f"{Digest.of(content)}?{query}", content)
    assert answer.status_code == 201
    assert answer.headers.get_list("oci-tag") == tags
    assert client.get(f"/v2/{name}/tags/list").json() == {"name": name, "tags": tags}
    many = "&".join(f"tag=t{at}" for at in range(101))
    digest = Digest.of(content)
    refused(push_manifest(client, name, f"{digest}?{many}", content), 414, "TAG_INVALID")
    bad = push_manifest(client, name, f"{Digest.of(content)}?tag=.x", content)
    refused(bad, 400, "TAG_INVALID")


def test_a_digest_that_is_not_the_bodys_is_refused(client: httpx.Client) -> None:
    answer = push_manifest(client, new_name(), Digest.of(b"x"), image())
    refused(answer, 400, "DIGEST_INVALID")


def test_a_sha512_reference_is_taken_and_served(client: httpx.Client) -> None:
    name = new_name()
    push_blob(client, name, b"{}")
    digest = Digest.of(image(), "sha512")
    answer = push_manifest(client, name, f"{digest}?tag=v1", image())
    assert answer.status_code == 201
    assert client.get(f"/v2/{name}/manifests/{digest}").content == image()
    assert client.get(f"/v2/{name}/manifests/v1").headers["docker-content-digest"] == digest


def test_missing_blobs_are_named_one_by_one(client: httpx.Client) -> None:
    answer = push_manifest(client, new_name(), "v1", image(b"1", b"2"))
    refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
    assert len(answer.json()["errors"]) == 3


def test_manifests_over_the_limit_are_413(client: httpx.Client) -> None:
    content = image().ljust(4 * 1024 * 1024 + 1)
    refused(push_manifest(client, new_name(), "v1", content), 413, "MANIFEST_INVALID")
    chunks = (content[at : at + 65536] for at in range(0, len(content), 65536))
    answer = client.put(
        f"/v2/{new_name()}/manifests/v1", content=chunks, headers={"Content-Type": OCI_MANIFEST}
    )
    refused(answer, 413, "MANIFEST_INVALID")


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b'{"schemaVersion":1}', b"\xff" * 100])
def test_what_is_no_manifest_is_400(client: httpx.Client, body: bytes) -> None:
    refused(push_manifest(client, new_name(), "v1", body), 400, "MANIFEST_INVALID")


def test_docker_manifests_and_lists_are_served_as_they_are(client: httpx.Client) -> None:
    name = new_name()
    push_blob(client, name, b"{}")
    child = image(mediaType=DOCKER_MANIFEST)
    entry = descriptor(child, DOCKER_MANIFEST, platform={"os": "linux", "architecture": "amd64"})
    parent = json.dumps(
        {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]}
    ).encode()
    for reference, content, kind in [
        (Digest.of(child), child, DOCKER_MANIFEST),
        ("v1", parent, DOCKER_LIST),
    ]:
        answer = push_manifest(client, name, reference, content, **{"Content-Type": kind})
        assert answer.status_code == 201, answer.text
    path = f"/v2/{name}/manifests/v1"
    assert client.get(path).headers["content-type"] == DOCKER_LIST
    # Only a client that knows nothing but single images gets the one for linux/amd64.
    old = client.get(path, headers={"Accept": DOCKER_MANIFEST})
    assert old.headers["docker-content-digest"] == Digest.of(child)
    assert old.content == child
    both = client.get(path, headers=[("Accept", DOCKER_MANIFEST), ("Accept", DOCKER_LIST)])
    assert both.content == parent
    other = client.get(path, headers={"Accept": "text/plain"})
    assert other.content == parent
    by_digest = f"/v2/{name}/manifests/{Digest.of(parent)}"
    assert client.get(by_digest, headers={"Accept": DOCKER_MANIFEST}).content == parent


def test_a_manifest_that_the_client_has_is_304(client: httpx.Client) -> None:
    name = new_name()
    digest = push_image(client, name, "v1")
    for value in (digest, f'"{digest}"', f'"x", "{digest}"'):
        answer = client.get(f"/v2/{name}/manifests/v1", headers={"If-None-Match": value})
        assert (answer.status_code, answer.content) == (304, b"")


def test_conditional_pushes_lose_to_what_is_there(client: httpx.Client) -> None:
    name = new_name()
    digest = push_image(client, name, "v1")
    push_blob(client, name, b"new")
    new = image(b"new")
    answer = push_manifest(client, name, "v1", new, **{"If-None-Match": "*"})
    refused(answer, 412, "PRECONDITION_FAILED")
    wrong = {"If-Match": f'"{Digest.of(new)}"'}
    refused(push_manifest(client, name, "v1", new, **wrong), 412, "PRECONDITION_FAILED")
    refused(client.delete(f"/v2/{name}/manifests/v1", headers=wrong), 412, "PRECONDITION_FAILED")
    assert push_manifest(client, name, "v1", new, **{"If-Match": f'"{digest}"'}).status_code == 201


def test_deletes_take_effect_at_once(client: httpx.Client) -> None:
    name = new_name()
    digest = push_image(client, name, "v1")
    push_image(client, name, "v2")
    assert client.delete(f"/v2/{name}/manifests/v1").status_code == 202
    refused(client.delete(f"/v2/{name}/manifests/v1"), 404, "MANIFEST_UNKNOWN")
    refused(client.get(f"/v2/{name}/manifests/v1"), 404, "MANIFEST_UNKNOWN")
    assert client.delete(f"/v2/{name}/manifests/{digest}").status_code == 202
    refused(client.get(f"/v2/{name}/manifests/v2"), 404, "MANIFEST_UNKNOWN")
    refused(client.delete(f"/v2/{name}/manifests/{digest}"), 404, "MANIFEST_UNKNOWN")
    assert client.get(f"/v2/{name}/tags/list").json()["tags"] == []


def test_unknown_repositories_and_tags_are_404(client: httpx.Client) -> None:
    name = new_name()
    refused(client.get(f"/v2/{name}/manifests/v1"), 404, "NAME_UNKNOWN")
    refused(client.get(f"/v2/{name}/tags/list"), 404, "NAME_UNKNOWN")
    refused(client.get(f"/v2/{name}/manifests/.x"), 404, "MANIFEST_UNKNOWN")
    refused(client.head(f"/v2/{name}/manifests/v1"), 404, "NAME_UNKNOWN")


def test_tags_are_paged_with_links(client: httpx.Client) -> None:
    name = new_name()
    push_blob(client, name, b"{}")
    content = image()
    tags = sorted(f"t{at}" for at in range(7))
    query = "&".join(f"tag={tag}" for tag in tags)
    push_manifest(client, name, f"{Digest.of(content)}?{query}", content)
    found = []
    address: str | None = f"/v2/{name}/tags/list?n=3"
    while address:
        answer = client.get(address)
        found.append(answer.json()["tags"])
        address = answer.links.get("next", {}).get("url")
    assert found == [tags[:3], tags[3:6], tags[6:]]
    none = client.get(f"/v2/{name}/tags/list?n=0")
    assert none.json()["tags"] == []
    assert "link" not in none.headers
    assert client.get(f"/v2/{name}/tags/list?n=100000&last=t3").json()["tags"] == tags[4:]
    for bad in ("-1", "x", "1.5", ""):
        refused(client.get(f"/v2/{name}/tags/list?n={bad}"), 400, "PAGINATION_NUMBER_INVALID")


def test_the_catalog_is_paged_with_links(client: httpx.Client) -> None:
    names = {new_name() for _ in range(3)}
    for name in names:
        push_image(client, name, "v1")
    found: list[str] = []
    address: str | None = "/v2/_catalog?n=2"
    while address:
        answer = client.get(address)
        found += answer.json()["repositories"]
        address = answer.links.get("next", {}).get("url")
    assert found == sorted(found)
    assert names <= set(found)


def test_referrers_are_listed_filtered_and_never_404(client: httpx.Client) -> None:
    name = new_name()
    empty = client.get(f"/v2/{name}/referrers/{Digest.of(b'x')}")
    assert empty.status_code == 200
    assert empty.headers["content-type"] == OCI_INDEX
    assert empty.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    subject = push_image(client, name, "v1")
    push_blob(client, name, b"{}")
    about = descriptor(image(b"layer"), OCI_MANIFEST)
    for kind in ("sbom", "signature"):
        content = image(b"layer", artifactType=kind, subject=about, annotations={"k": kind})
        answer = push_manifest(client, name, Digest.of(content), content)
        assert answer.headers["oci-subject"] == subject
    listed = client.get(f"/v2/{name}/referrers/{subject}")
    assert {one["artifactType"] for one in listed.json()["manifests"]} == {"sbom", "signature"}
    assert "oci-filters-applied" not in listed.headers
    filtered = client.get(f"/v2/{name}/referrers/{subject}?artifactType=sbom")
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    (only,) = filtered.json()["manifests"]
    assert only["annotations"] == {"k": "sbom"}
    assert only["mediaType"] == OCI_MANIFEST
    refused(client.get(f"/v2/{name}/referrers/sha256:x"), 400, "DIGEST_INVALID")


def test_an_index_needs_its_children(client: httpx.Client) -> None:
    name = new_name()
    answer = push_manifest(client, name, "v1", index(b"absent"), **{"Content-Type": OCI_INDEX})
    refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
