from collections.abc import Sequence
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.digest import Digest
from oci.errors import (
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    RegistryError,
    TagInvalid,
)
from registry.v2.routes import (
    ALLOWED,
    QUERY_LIMIT,
    Kind,
    MethodNotAllowed,
    UriTooLong,
    is_absent_name,
    parse,
)

DIGEST = Digest.of(b"x")
UPLOAD = "0b43ad57-6b8f-4a0c-9d1c-9c7e6e4a7a11"

components = st.sampled_from(
    ["a", "b0", "blobs", "manifests", "tags", "list", "uploads", "referrers", "x-y", "_catalog"[1:]]
)
names = st.lists(components, min_size=1, max_size=5).map("/".join)


@given(names)
def test_every_kind_is_found_whatever_the_name_is_made_of(name: str) -> None:
    cases = [
        (Kind.BLOB, "GET", f"blobs/{DIGEST}"),
        (Kind.MANIFEST, "GET", f"manifests/{DIGEST}"),
        (Kind.MANIFEST, "PUT", "manifests/uploads"),
        (Kind.UPLOADS, "POST", "blobs/uploads/"),
        (Kind.UPLOADS, "POST", "blobs/uploads"),
        (Kind.UPLOAD, "PATCH", f"blobs/uploads/{UPLOAD}"),
        (Kind.TAGS, "GET", "tags/list"),
        (Kind.REFERRERS, "GET", f"referrers/{DIGEST}"),
    ]
    for kind, method, tail in cases:
        request = parse(method, f"/v2/{name}/{tail}".encode(), b"")
        assert (request.kind, request.name) == (kind, name)


@given(names)
def test_percent_encoding_of_anything_but_a_slash_is_undone(name: str) -> None:
    plain = parse("GET", f"/v2/{name}/blobs/{DIGEST}".encode(), b"")
    encoded = parse("GET", f"/v2/{name}/blobs/{quote(DIGEST)}".encode(), b"")
    assert plain == encoded
    with pytest.raises(NameUnknown):
        parse("GET", f"/v2/{name}%2Fx/blobs/{DIGEST}".encode(), b"")


def test_the_base_and_the_catalog_are_found() -> None:
    assert parse("GET", b"/v2/", b"").kind is Kind.PING
    assert parse("GET", b"/v2", b"").kind is Kind.PING
    assert parse("GET", b"/v2/_catalog", b"n=3&last=a%2Fb").query == {"n": ["3"], "last": ["a/b"]}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/",
        "/v2x",
        "/v2/a",
        "/v2/a/b",
        "/v2/manifests/x",
        "/v2/blobs/uploads/",
        "/v2/a/manifests/",
        "/v2//",
    ],
)
def test_other_paths_are_unknown(path: str) -> None:
    with pytest.raises(NameUnknown):
        parse("GET", path.encode(), b"")


def test_a_wrong_method_names_the_right_ones() -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        parse("POST", f"/v2/a/blobs/{DIGEST}".encode(), b"")
    assert caught.value.allowed == ALLOWED[Kind.BLOB]


def test_bad_parts_are_refused_with_their_own_code() -> None:
    with pytest.raises(NameInvalid):
        parse("GET", f"/v2/A/blobs/{DIGEST}".encode(), b"")
    with pytest.raises(DigestInvalid):
        parse("GET", b"/v2/a/blobs/sha256:x", b"")
    with pytest.raises(DigestInvalid):
        parse("GET", b"/v2/a/manifests/sha256:x", b"")
    with pytest.raises(TagInvalid):
        parse("PUT", b"/v2/a/manifests/.x", b"")
    with pytest.raises(ManifestUnknown):
        parse("GET", b"/v2/a/manifests/.x", b"")
    with pytest.raises(UriTooLong):
        parse("GET", b"/v2/a/tags/list", b"&".join([b"n=1"] * (QUERY_LIMIT + 1)))


@pytest.mark.parametrize(("method", "absent"), [("GET", True), ("HEAD", True), ("PUT", False)])
def test_pulling_a_name_that_cannot_be_is_absence(method: str, absent: bool) -> None:
    with pytest.raises(NameInvalid) as caught:
        parse(method, b"/v2/a/b/c/manifests/x", b"", namespaced=True)
    assert is_absent_name(caught.value, method) is absent


segments = st.lists(
    st.sampled_from(
        [
            "v2",
            "a",
            "",
            ".",
            "..",
            "blobs",
            "uploads",
            "manifests",
            "tags",
            "list",
            "%00",
            "%zz",
            str(DIGEST),
        ]
    )
    | st.text(alphabet=st.characters(codec="latin-1"), max_size=6),
    max_size=8,
)


@given(
    st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "X"]),
    segments,
    st.binary(max_size=60),
)
def test_any_path_is_parsed_or_refused_as_a_registry_error(
    method: str, parts: Sequence[str], query: bytes
) -> None:
    try:
        request = parse(method, ("/v2/" + "/".join(parts)).encode("latin-1"), query)
        assert method in ALLOWED[request.kind]
    except RegistryError:
        pass
