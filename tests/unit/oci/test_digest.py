import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.digest import ALGORITHMS, RESUMABLE, Digest, new_hasher, resume_hasher
from oci.errors import DigestInvalid

# What Go 1.26's crypto/sha256 gives as MarshalBinary after Write([]byte("abc")).
GO_STATE_OF_ABC = (
    bytes.fromhex("736861036a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19616263")
    + bytes(61)
    + (3).to_bytes(8, "big")
)


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + "a" * 63,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 65,
        "sha512:" + "a" * 64,
        "sha1:" + "a" * 40,
        "sha256:" + "a" * 64 + "\n",
        "sha256" + "a" * 64,
        "",
        ":",
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(DigestInvalid):
        Digest.parse(text)


@given(st.text(max_size=200))
def test_parse_takes_a_text_whole_or_not_at_all(text: str) -> None:
    with contextlib.suppress(DigestInvalid):
        assert Digest.parse(text) == text


@given(st.binary(max_size=2000), st.sampled_from(ALGORITHMS))
def test_parts_are_those_of_the_text(content: bytes, algorithm: str) -> None:
    digest = Digest.parse(Digest.of(content, algorithm))
    assert digest.algorithm == algorithm
    assert digest.hex == hashlib.new(algorithm, content).hexdigest()


def test_this_openssl_can_save_a_hash() -> None:
    assert RESUMABLE


@given(st.lists(st.binary(max_size=400), max_size=8), st.sampled_from(ALGORITHMS))
def test_a_hash_saved_and_resumed_between_any_two_chunks_is_that_of_the_whole(
    chunks: list[bytes], algorithm: str
) -> None:
    hasher = new_hasher(algorithm)
    for chunk in chunks:
        state = hasher.state()
        assert state is not None
        resumed = resume_hasher(algorithm, state, hasher.count)
        assert resumed is not None
        hasher = resumed
        hasher.update(memoryview(bytearray(chunk)))
    assert hasher.digest() == Digest.of(b"".join(chunks), algorithm)
    assert hasher.count == sum(map(len, chunks))


def test_the_state_has_the_form_that_go_writes() -> None:
    hasher = new_hasher()
    hasher.update(b"abc")
    assert hasher.state() == GO_STATE_OF_ABC


def test_a_state_that_go_wrote_is_resumed() -> None:
    hasher = resume_hasher("sha256", GO_STATE_OF_ABC, 3)
    assert hasher is not None
    hasher.update(b"def")
    assert hasher.digest() == Digest.of(b"abcdef")


@pytest.mark.parametrize(
    "state", [b"", GO_STATE_OF_ABC[:-1], b"\0" * 108, b"sha\x07" + GO_STATE_OF_ABC[4:]]
)
def test_a_torn_state_is_not_resumed(state: bytes) -> None:
    assert resume_hasher("sha256", state, 3) is None


def test_a_state_of_another_offset_is_not_resumed() -> None:
    assert resume_hasher("sha256", GO_STATE_OF_ABC, 4) is None


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(DigestInvalid):
        new_hasher("md5")
