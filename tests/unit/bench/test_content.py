"""What is pushed: sizes, digests, chunk framing, images."""

from __future__ import annotations

import hashlib
import json

import pytest

from bench.content import CHUNK, MIB, Content, digest_of, small_image
from bench.wire import parse_chunks


@pytest.mark.parametrize("size", [64, 65, 2048, MIB, MIB + 64, 2 * MIB + 777])
def test_digest_is_that_of_the_bytes(size: int) -> None:
    content = Content(size, "salt")
    sent = b"".join(content)
    assert len(sent) == size
    assert content.digest == "sha256:" + hashlib.sha256(sent).hexdigest()


def test_salts_make_different_contents() -> None:
    assert Content(MIB, "a").digest != Content(MIB, "b").digest


def test_content_too_small_for_its_salt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64"):
        Content(63, "a")


@pytest.mark.parametrize("size", [64, CHUNK, MIB + 64, MIB + CHUNK + 100])
def test_chunks_carry_the_same_bytes_in_pieces_of_32_kib(size: int) -> None:
    content = Content(size, "salt")
    pieces = list(content.chunks())
    coded = b"".join(pieces)
    assert parse_chunks(coded, 0) == (b"".join(content), len(coded))
    assert max(map(len, pieces)) <= CHUNK + len(b"8000\r\n\r\n")


def test_manifest_describes_the_blobs_of_its_image() -> None:
    image = small_image("seed", layers=2, layer_size=500)
    manifest = json.loads(image.manifest)
    described = [manifest["config"], *manifest["layers"]]
    assert [entry["digest"] for entry in described] == [digest_of(blob) for blob in image.blobs]
    assert [entry["size"] for entry in described] == [1024, 500, 500]


def test_images_of_two_seeds_share_no_blob() -> None:
    assert not set(small_image("a").blobs) & set(small_image("b").blobs)
