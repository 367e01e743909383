from bisect import bisect_right

from hypothesis import given, settings
from hypothesis import strategies as st

from oci.digest import Digest
from registry.metadata import StorageMetadata
from registry.stored import StoredRegistry
from storage import paths
from storage.driver import StorageDriver
from storage.memory import MemoryDriver
from tests.fakes.images import push_blob, push_image

components = st.sampled_from(["a", "a-b", "a.b", "a0", "b", "ab", "z"])
names = st.lists(components, min_size=1, max_size=4).map("/".join)


@settings(max_examples=60, deadline=None)
@given(st.sets(names, max_size=12), names | st.just(""), st.integers(1, 5))
async def test_pages_are_the_byte_order_of_all_names(
    repositories: set[str], after: str, size: int
) -> None:
    driver = MemoryDriver()
    for name in repositories:
        await driver.put(paths.revision_link(name, Digest.of(b"x")), b"")
    metadata = StorageMetadata(driver)
    expected = sorted(repositories)
    expected = expected[bisect_right(expected, after) :]
    found: list[str] = []
    more = True
    while more:
        page = await metadata.repositories(found[-1] if found else after, size)
        assert len(page.names) <= size
        found += page.names
        more = page.more
        assert not more or len(page.names) == size
    assert found == expected


async def test_a_repository_is_listed_once_it_has_a_manifest(
    driver: StorageDriver, registry: StoredRegistry
) -> None:
    await push_blob(registry, "only/blobs", b"x")
    await registry.start_upload("only/uploads", "sha256")
    await push_image(registry, "has/manifest", "v1")
    assert list((await registry.repositories("", 10)).names) == ["has/manifest"]


async def test_tags_are_paged_in_byte_order(registry: StoredRegistry) -> None:
    await push_image(registry, "a", "v10", "v2", "V3", "latest", "_x")
    order = ["V3", "_x", "latest", "v10", "v2"]
    page = await registry.tags("a", "", 3)
    assert (list(page.names), page.more) == (order[:3], True)
    page = await registry.tags("a", "latest", 3)
    assert (list(page.names), page.more) == (order[3:], False)
    assert list((await registry.tags("a", "between", 1)).names) == ["latest"]
    assert list((await registry.tags("a", "", 0)).names) == []
