import random
from dataclasses import replace

import pytest

from oci.digest import Digest
from oci.errors import BlobUnknown, BlobUploadUnknown, DigestInvalid, RangeInvalid
from registry.repository import Upload
from registry.stored import StoredRegistry
from registry.uploads import SMALL_BODY, UploadSessions
from serving.body import ClientDisconnected
from storage import paths
from storage.driver import StorageDriver
from tests.fakes.body import MemoryBody

BIG = random.Random(1).randbytes(3 * SMALL_BODY + 17)
EMPTY = Digest.of(b"")


async def content_of(registry: StoredRegistry, name: str, digest: Digest) -> bytes:
    blob = await registry.open_blob(name, digest)
    try:
        return b"".join([piece async for piece in blob.read(0, blob.size)])
    finally:
        blob.close()


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "small", "large"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_blob_in_one_request_is_readable(
    registry: StoredRegistry, content: bytes, algorithm: str
) -> None:
    digest = Digest.of(content, algorithm)
    upload = await registry.start_upload("a", algorithm)
    assert await registry.finish_upload(upload, MemoryBody(content), digest) == len(content)
    assert await registry.stat_blob("a", digest) == len(content)
    assert await content_of(registry, "a", digest) == content
    with pytest.raises(BlobUploadUnknown):
        await registry.upload_status("a", upload.id)


@pytest.mark.parametrize(
    "sizes", [[1, 1, 1], [len(BIG)], [SMALL_BODY, 1, SMALL_BODY + 1], [10, SMALL_BODY * 2, 3]]
)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_chunks_on_alternating_processes_make_one_blob(
    driver: StorageDriver, sizes: list[int], algorithm: str
) -> None:
    one, other = UploadSessions(driver), UploadSessions(driver)
    upload = await one.start("a")
    at = 0
    for size in sizes:
        upload = await one.append(upload, MemoryBody(BIG[at : at + size], chunked=True))
        at += size
        assert upload.size == at
        one, other = other, one
    assert await one.finish(upload, MemoryBody(), Digest.of(BIG[:at], algorithm)) == at


async def test_a_commit_whose_hash_was_saved_reads_nothing_again(
    driver: StorageDriver, registry: StoredRegistry
) -> None:
    upload = await registry.append_upload(
        await registry.start_upload("a", "sha256"), MemoryBody(BIG)
    )
    # Whoever reads the file again finds other bytes of the same length: the commit must not.
    async with await driver.writer(paths.upload_data("a", upload.id), append=False) as writer:
        await writer.write(bytes(len(BIG)))
        await writer.commit()
    await registry.finish_upload(upload, MemoryBody(), Digest.of(BIG))


@pytest.mark.parametrize("torn", [b"", b"torn", b"\0" * 108])
async def test_a_commit_without_a_usable_hash_reads_the_bytes_again(
    driver: StorageDriver, torn: bytes
) -> None:
    sessions = UploadSessions(driver)
    upload = await sessions.append(await sessions.start("a"), MemoryBody(BIG))
    await driver.put(paths.hash_state("a", upload.id, "sha256", upload.size), torn)
    with pytest.raises(DigestInvalid):
        await sessions.finish(replace(upload), MemoryBody(), Digest.of(b"other"))
    upload = await sessions.append(await sessions.start("a"), MemoryBody(BIG))
    await driver.put(paths.hash_state("a", upload.id, "sha256", upload.size), torn)
    assert (
        await sessions.finish(upload, MemoryBody(b"tail"), Digest.of(BIG + b"tail")) == len(BIG) + 4
    )


@pytest.mark.parametrize("content", [b"x", BIG], ids=["small", "large"])
async def test_content_of_another_digest_is_refused_and_the_upload_removed(
    registry: StoredRegistry, content: bytes
) -> None:
    upload = await registry.start_upload("a", "sha256")
    with pytest.raises(DigestInvalid):
        await registry.finish_upload(upload, MemoryBody(content), EMPTY)
    with pytest.raises(BlobUploadUnknown):
        await registry.upload_status("a", upload.id)
    with pytest.raises(BlobUnknown):
        await registry.stat_blob("a", EMPTY)


@pytest.mark.parametrize("content", [b"x", BIG], ids=["small", "large"])
async def test_a_chunk_out_of_order_changes_nothing(
    registry: StoredRegistry, content: bytes
) -> None:
    upload = await registry.append_upload(
        await registry.start_upload("a", "sha256"), MemoryBody(b"12345")
    )
    for size in (0, 4, 6):
        with pytest.raises(RangeInvalid) as caught:
            await registry.append_upload(replace(upload, size=size), MemoryBody(content))
        assert caught.value.detail == {"size": 5}
        with pytest.raises(RangeInvalid):
            await registry.finish_upload(replace(upload, size=size), MemoryBody(content), EMPTY)
    assert (await registry.upload_status("a", upload.id)).size == 5
    await registry.finish_upload(upload, MemoryBody(), Digest.of(b"12345"))


async def test_what_came_before_a_client_went_away_can_be_continued(
    registry: StoredRegistry,
) -> None:
    upload = await registry.start_upload("a", "sha256")
    with pytest.raises(ClientDisconnected):
        await registry.append_upload(upload, MemoryBody(BIG[: SMALL_BODY + 1], cut=True))
    standing = await registry.upload_status("a", upload.id)
    assert standing.size == SMALL_BODY + 1
    await registry.finish_upload(standing, MemoryBody(BIG[SMALL_BODY + 1 :]), Digest.of(BIG))


async def test_a_second_writer_is_refused_while_the_first_writes(
    driver: StorageDriver, registry: StoredRegistry
) -> None:
    upload = await registry.append_upload(
        await registry.start_upload("a", "sha256"), MemoryBody(b"12345")
    )
    async with await driver.writer(paths.upload_data("a", upload.id), append=True):
        for content in (b"x", BIG):
            with pytest.raises(RangeInvalid):
                await registry.append_upload(upload, MemoryBody(content))
        with pytest.raises(RangeInvalid):
            await registry.finish_upload(upload, MemoryBody(), Digest.of(b"12345"))
    await registry.finish_upload(upload, MemoryBody(), Digest.of(b"12345"))


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "small", "large"])
async def test_an_unknown_upload_takes_nothing(registry: StoredRegistry, content: bytes) -> None:
    gone = await registry.start_upload("a", "sha256")
    await registry.cancel_upload("a", gone.id)
    for upload in (gone, Upload("a", "0b43ad57-6b8f-4a0c-9d1c-9c7e6e4a7a11", "", 0)):
        with pytest.raises(BlobUploadUnknown):
            await registry.append_upload(upload, MemoryBody(content))
        with pytest.raises(BlobUploadUnknown):
            await registry.finish_upload(upload, MemoryBody(content), Digest.of(content))
        with pytest.raises(BlobUploadUnknown):
            await registry.cancel_upload("a", upload.id)


@pytest.mark.parametrize(
    "upload", ["", "x", "..", "0b43ad57-6b8f-1a0c-9d1c-9c7e6e4a7a11", "../../x"]
)
async def test_an_upload_id_that_is_none_never_reaches_storage(
    registry: StoredRegistry, upload: str
) -> None:
    with pytest.raises(BlobUploadUnknown):
        await registry.upload_status("a", upload)
    with pytest.raises(BlobUploadUnknown):
        await registry.cancel_upload("a", upload)


async def test_pushing_a_blob_that_is_there_links_it_and_keeps_the_stored_one(
    driver: StorageDriver, registry: StoredRegistry
) -> None:
    digest = Digest.of(BIG)
    for name in ("a", "b", "b"):
        await registry.finish_upload(
            await registry.start_upload(name, "sha256"), MemoryBody(BIG), digest
        )
    assert await content_of(registry, "b", digest) == BIG


async def test_a_stored_blob_of_the_wrong_size_is_replaced_and_reported(
    driver: StorageDriver,
) -> None:
    digest = Digest.of(BIG)
    await driver.put(paths.blob(digest), b"torn")
    corrupt: list[Digest] = []
    sessions = UploadSessions(driver, on_corrupt=corrupt.append)
    await sessions.finish(await sessions.start("a"), MemoryBody(BIG), digest)
    assert corrupt == [digest]
    assert await driver.get(paths.blob(digest)) == BIG


async def test_a_blob_is_readable_only_where_it_is_linked(registry: StoredRegistry) -> None:
    digest = Digest.of(b"x")
    await registry.finish_upload(
        await registry.start_upload("a", "sha256"), MemoryBody(b"x"), digest
    )
    with pytest.raises(BlobUnknown):
        await registry.stat_blob("b", digest)
    with pytest.raises(BlobUnknown):
        await registry.open_blob("b", digest)


async def test_mounting_links_what_the_source_has(registry: StoredRegistry) -> None:
    digest = Digest.of(b"x")
    assert not await registry.mount_blob("b", digest, "a")
    await registry.finish_upload(
        await registry.start_upload("a/deep", "sha256"), MemoryBody(b"x"), digest
    )
    assert not await registry.mount_blob("b", digest, "a")
    assert await registry.mount_blob("b", digest, "a/deep")
    assert await registry.mount_blob("c", digest, None)
    assert await registry.stat_blob("b", digest) == await registry.stat_blob("c", digest) == 1


async def test_a_deleted_blob_is_gone_at_once_in_its_repository_only(
    registry: StoredRegistry,
) -> None:
    for name in ("a", "b"):
        await registry.finish_upload(
            await registry.start_upload(name, "sha256"), MemoryBody(), EMPTY
        )
    await registry.delete_blob("a", EMPTY)
    with pytest.raises(BlobUnknown):
        await registry.stat_blob("a", EMPTY)
    with pytest.raises(BlobUnknown):
        await registry.delete_blob("a", EMPTY)
    assert await registry.stat_blob("b", EMPTY) == 0


async def test_an_empty_or_malformed_link_counts_as_absent(
    driver: StorageDriver, registry: StoredRegistry
) -> None:
    await registry.finish_upload(
        await registry.start_upload("a", "sha256"), MemoryBody(b"x"), Digest.of(b"x")
    )
    for content in (b"", b"sha256:x", b"\xff" * 71, b"x" * 5000):
        await driver.put(paths.layer_link("a", Digest.of(b"x")), content)
        with pytest.raises(BlobUnknown):
            await registry.stat_blob("a", Digest.of(b"x"))


async def test_a_sha512_name_linked_to_the_sha256_blob_is_served(
    driver: StorageDriver, registry: StoredRegistry
) -> None:
    stored, asked = Digest.of(b"x"), Digest.of(b"x", "sha512")
    await driver.put(paths.blob(stored), b"x")
    await driver.put(paths.layer_link("a", asked), stored.encode())
    assert await content_of(registry, "a", asked) == b"x"
