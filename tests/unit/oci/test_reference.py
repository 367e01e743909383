import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import DigestInvalid, NameComponentsInvalid, NameInvalid, TagInvalid
from oci.reference import Reference, check_name, check_tag

_SPEC_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")


@pytest.mark.parametrize(
    "name", ["a", "a/b", "a/b/c/d", "a.b", "a__b", "a---b/c", "blobs/uploads", "0/0"]
)
def test_names_of_the_grammar_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "a/", "/a", "a//b", "a..b", "a___b", "-a", "a-", "a_/b", "ä", "a b", "a\n"]
)
def test_names_outside_the_grammar_are_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        check_name(name)


@given(st.text(alphabet="ab0._-/A", max_size=20))
def test_names_are_those_of_the_specification(name: str) -> None:
    expected = _SPEC_NAME.fullmatch(name) is not None
    try:
        check_name(name)
        assert expected
    except NameInvalid:
        assert not expected


def test_host_and_name_fit_into_255_bytes() -> None:
    check_name("a" * (255 - 1 - 9), host="localhost")
    with pytest.raises(NameInvalid):
        check_name("a" * (255 - 9), host="localhost")


@pytest.mark.parametrize("name", ["a", "a/b/c"])
def test_namespaced_names_have_two_components(name: str) -> None:
    with pytest.raises(NameComponentsInvalid, match="<namespace>/<name>"):
        check_name(name, namespaced=True)


@pytest.mark.parametrize("name", ["a.b/c", "a_b/c", "a" * 64 + "/c"])
def test_a_namespace_is_an_rfc_1123_label(name: str) -> None:
    with pytest.raises(NameInvalid):
        check_name(name, namespaced=True)


def test_a_long_name_costs_no_time() -> None:
    with pytest.raises(NameInvalid):
        check_name("a-" * 100_000)


@pytest.mark.parametrize("tag", ["latest", "v1.0", "_x", "A" * 128])
def test_tags_of_the_grammar_are_taken(tag: str) -> None:
    assert check_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", ".x", "-x", "A" * 129, "a/b", "a b", "ä", "a\n"])
def test_tags_outside_the_grammar_are_refused(tag: str) -> None:
    with pytest.raises(TagInvalid):
        check_tag(tag)


def test_a_reference_with_a_colon_is_a_digest() -> None:
    digest = "sha256:" + "a" * 64
    assert Reference.parse(digest).digest == digest
    assert Reference.parse("latest").tag == "latest"
    with pytest.raises(DigestInvalid):
        Reference.parse("latest:1")
