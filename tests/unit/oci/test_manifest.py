import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.descriptor import (
    DOCKER_FOREIGN_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)
from oci.digest import Digest
from oci.errors import ManifestInvalid, ManifestTooLarge
from oci.manifest import MANIFEST_LIMIT, media_type_of, parse_manifest

DIGEST = str(Digest.of(b"x"))


def descriptor(**changes: Any) -> dict[str, Any]:
    return {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 1, **changes}


def image(**changes: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(),
            "layers": [descriptor()],
            **changes,
        }
    ).encode()


def index(**changes: Any) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor()], **changes}
    ).encode()


def test_an_image_is_read() -> None:
    manifest = parse_manifest(image(annotations={"a": "b"}, artifactType="t"), OCI_MANIFEST)
    assert [one.digest for one in manifest.blobs()] == [DIGEST, DIGEST]
    assert (manifest.media_type, manifest.is_index, manifest.artifact_type) == (
        OCI_MANIFEST,
        False,
        "t",
    )
    assert manifest.annotations == {"a": "b"}


def test_an_index_is_read() -> None:
    manifest = parse_manifest(
        index(manifests=[descriptor(platform={"os": "linux", "architecture": "arm64"})])
    )
    assert manifest.is_index
    assert manifest.child_for("linux", "arm64") is not None
    assert manifest.child_for("linux", "amd64") is None


def test_oci_documents_may_leave_the_media_type_out() -> None:
    assert parse_manifest(image(mediaType=None), OCI_MANIFEST).media_type == OCI_MANIFEST
    assert parse_manifest(image(mediaType=None)).media_type == OCI_MANIFEST
    assert parse_manifest(index(mediaType=None)).media_type == OCI_INDEX


def test_the_type_of_stored_bytes_comes_from_the_bytes() -> None:
    assert parse_manifest(image(mediaType=DOCKER_MANIFEST)).media_type == DOCKER_MANIFEST
    assert parse_manifest(index(mediaType=DOCKER_LIST)).media_type == DOCKER_LIST


def test_an_unspecific_header_leaves_it_to_the_body() -> None:
    assert parse_manifest(image(), "application/json").media_type == OCI_MANIFEST


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", None),
        (b"[]", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (b'{"schemaVersion":2,"schemaVersion":2}', None),
        (image(schemaVersion=1), OCI_MANIFEST),
        (image(schemaVersion=True), OCI_MANIFEST),
        (image(schemaVersion="2"), OCI_MANIFEST),
        (image(), DOCKER_MANIFEST),
        (image(mediaType=None), "application/json"),
        (image(mediaType="text/plain"), None),
        (image(mediaType=7), OCI_MANIFEST),
        (image(manifests=[]), OCI_MANIFEST),
        (index(layers=[]), OCI_INDEX),
        (image(mediaType=OCI_INDEX), OCI_INDEX),
        (index(mediaType=OCI_MANIFEST), OCI_MANIFEST),
        (image(config=None), OCI_MANIFEST),
        (image(config=descriptor(digest="sha256:1")), OCI_MANIFEST),
        (image(config=descriptor(size=-1)), OCI_MANIFEST),
        (image(config=descriptor(size=1.5)), OCI_MANIFEST),
        (image(config=descriptor(size=True)), OCI_MANIFEST),
        (image(config=descriptor(size=2**63)), OCI_MANIFEST),
        (image(config=descriptor(mediaType="")), OCI_MANIFEST),
        (image(layers={}), OCI_MANIFEST),
        (image(layers=["x"]), OCI_MANIFEST),
        (image(layers=[descriptor(urls="x")]), OCI_MANIFEST),
        (image(annotations={"a": 1}), OCI_MANIFEST),
        (image(subject=[]), OCI_MANIFEST),
        (image(artifactType=1), OCI_MANIFEST),
    ],
)
def test_what_is_no_manifest_is_refused(body: bytes, content_type: str | None) -> None:
    with pytest.raises(ManifestInvalid):
        parse_manifest(body, content_type)


def test_schema_1_is_named_in_its_refusal() -> None:
    for content_type in (None, "application/vnd.docker.distribution.manifest.v1+prettyjws"):
        with pytest.raises(ManifestInvalid, match="schema 1"):
            parse_manifest(b'{"schemaVersion":1}', content_type)
    with pytest.raises(ManifestInvalid, match="schema 1"):
        parse_manifest(image(), "application/vnd.docker.distribution.manifest.v1+json")


def test_a_manifest_over_the_limit_is_refused() -> None:
    parse_manifest(image().ljust(MANIFEST_LIMIT), OCI_MANIFEST)
    with pytest.raises(ManifestTooLarge):
        parse_manifest(image().ljust(MANIFEST_LIMIT + 1), OCI_MANIFEST)


def test_only_non_distributable_layers_with_an_address_are_foreign() -> None:
    layers = [
        descriptor(mediaType=DOCKER_FOREIGN_LAYER, urls=["https://x"]),
        descriptor(mediaType=DOCKER_FOREIGN_LAYER),
        descriptor(
            mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            urls=["https://x"],
        ),
        descriptor(urls=["https://x"]),
    ]
    assert [layer.is_foreign for layer in parse_manifest(image(layers=layers)).layers] == [
        True,
        False,
        True,
        False,
    ]


def test_the_referrer_type_is_the_artifacts_else_the_configs() -> None:
    assert parse_manifest(image(artifactType="a")).referrer_type == "a"
    assert parse_manifest(image()).referrer_type == OCI_CONFIG
    assert parse_manifest(index()).referrer_type is None


@pytest.mark.parametrize(
    ("header", "media_type"),
    [(None, None), ("", None), ("A/B", "a/b"), (" a/b ; charset=x", "a/b")],
)
def test_media_types_lose_their_parameters(header: str | None, media_type: str | None) -> None:
    assert media_type_of(header) == media_type


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(DIGEST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["mediaType", "digest", "size", "urls", "config", "layers", "manifests", "x"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["mediaType", "config", "layers", "manifests", "subject"]), json_values
    )
)
def test_any_document_is_read_or_refused_as_manifest(document: dict[str, Any]) -> None:
    with contextlib.suppress(ManifestInvalid):
        parse_manifest(json.dumps({"schemaVersion": 2, **document}).encode())


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_as_manifest(body: bytes) -> None:
    with contextlib.suppress(ManifestInvalid):
        parse_manifest(body)
