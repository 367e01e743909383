"""The seam behind which tags, membership and push records live: over storage here, over the Image
API later.

`record_push` gets the files that must be durable before the push may be seen: each implementation
publishes them first, then makes the tag visible. The implementation over storage is the reference
of the seam's contract: storage is its only truth, read at each request, so that any number of
processes agree.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

from oci.digest import Digest
from oci.errors import ManifestUnknown, NameUnknown, PreconditionFailed
from registry.catalog import repositories_after
from registry.links import read_link
from registry.repository import ALWAYS, Condition, ManifestPush, Page
from storage import paths
from storage.driver import FileInfo, StorageDriver
from storage.plan import Delete, Entry, Names, Plan, Publish, PutFolder, Stat, perform


class ImageMetadata(Protocol):
    async def resolve(self, name: str, tag: str) -> Digest:
        """The digest that the tag points to now. Raises NameUnknown, ManifestUnknown."""
        ...

    async def missing(self, name: str, digest: Digest) -> NameUnknown | ManifestUnknown:
        """What to say of a manifest that the repository has not got."""
        ...

    async def record_push(
        self, name: str, push: ManifestPush, files: Sequence[Sequence[Entry]]
    ) -> None:
        """Publishes `files`, group by group, then points the push's tags to its digest. Raises
        PreconditionFailed."""
        ...

    async def delete_tag(self, name: str, tag: str, condition: Condition) -> None:
        """Raises NameUnknown, ManifestUnknown, PreconditionFailed."""
        ...

    async def untag(self, name: str, digest: Digest) -> list[str]:
        """Removes every tag that points to `digest`, and gives their names."""
        ...

    async def tags(self, name: str, after: str, limit: int) -> Page:
        """Raises NameUnknown."""
        ...

    async def repositories(self, after: str, limit: int) -> Page: ...


class StorageMetadata:
    """Tags as folders of links: `current/link` is the tag, and counts only while its digest's
    revision link exists.

    Conditions on a tag are compared, then written: not atomic between processes.
    """

    def __init__(self, driver: StorageDriver) -> None:
        self._driver = driver

    async def resolve(self, name: str, tag: str) -> Digest:
        digest = await perform(self._driver, _current(name, tag))
        if digest is None:
            raise await self._unknown_tag(name, tag)
        return digest

    async def missing(self, name: str, digest: Digest) -> NameUnknown | ManifestUnknown:
        if not await perform(self._driver, _exists(name)):
            return _unknown_name(name)
        return ManifestUnknown(
            f"repository {name} has no manifest {digest}", {"name": name, "digest": digest}
        )

    async def record_push(
        self, name: str, push: ManifestPush, files: Sequence[Sequence[Entry]]
    ) -> None:
        def plan() -> Plan[None]:
            if push.condition is not ALWAYS:
                for tag in push.tags:
                    check(push.condition, tag, (yield from _current(name, tag)))
            tags = [
                PutFolder(
                    paths.tag_folder(name, tag),
                    ((paths.index_link(push.digest), link), (paths.CURRENT_LINK, link)),
                )
                for tag in push.tags
            ]
            yield Publish([*files, tags] if tags else files)

        link = push.digest.encode()
        await perform(self._driver, plan(), writes=True)

    async def delete_tag(self, name: str, tag: str, condition: Condition) -> None:
        def plan() -> Plan[bool]:
            current = yield from _current(name, tag)
            check(condition, tag, current)
            removed: bool = yield Delete(paths.tag_folder(name, tag), at_once=True)
            return removed and current is not None

        if not await perform(self._driver, plan(), writes=True):
            raise await self._unknown_tag(name, tag)

    async def untag(self, name: str, digest: Digest) -> list[str]:
        def plan() -> Plan[list[str]]:
            tags: list[str] = yield Names(paths.tags(name), keep=True)
            candidates: list[FileInfo | None] = yield [
                Stat(paths.tag_index(name, tag, digest)) for tag in tags
            ]
            removed = []
            for tag, candidate in zip(tags, candidates, strict=True):
                if (
                    candidate is not None
                    and (yield from read_link(paths.tag_current(name, tag))) == digest
                ):
                    yield Delete(paths.tag_folder(name, tag), at_once=True)
                    removed.append(tag)
            return removed

        return await perform(self._driver, plan(), writes=True)

    async def tags(self, name: str, after: str, limit: int) -> Page:
        def plan() -> Plan[list[str] | None]:
            names: list[str] = yield Names(paths.tags(name), keep=True)
            if not names and not (yield from _exists(name)):
                return None
            return names

        names = await perform(self._driver, plan())
        if names is None:
            raise _unknown_name(name)
        start = bisect_right(names, after) if after else 0
        return Page(names[start : start + limit], start + limit < len(names))

    async def repositories(self, after: str, limit: int) -> Page:
        return await perform(self._driver, repositories_after(after, limit))

    async def _unknown_tag(self, name: str, tag: str) -> NameUnknown | ManifestUnknown:
        if not await perform(self._driver, _exists(name)):
            return _unknown_name(name)
        return ManifestUnknown(f"repository {name} has no tag {tag}", {"name": name, "tag": tag})


def check(condition: Condition, tag: str, current: Digest | None) -> None:
    """Raises PreconditionFailed unless the tag's digest now (None: no such tag) is as the condition
    wants it."""
    if condition.absent and current is not None:
        raise PreconditionFailed(f"tag {tag} exists already", {"tag": tag, "digest": current})
    if condition.matches is not None and current not in condition.matches:
        raise PreconditionFailed(
            f"tag {tag} points to {current or 'nothing'} now", {"tag": tag, "digest": current}
        )


def _current(name: str, tag: str) -> Plan[Digest | None]:
    digest = yield from read_link(paths.tag_current(name, tag))
    if digest is None or (yield from read_link(paths.revision_link(name, digest))) is None:
        return None
    return digest


def _exists(name: str) -> Plan[bool]:
    """A repository exists once it has a manifest or a blob; open uploads alone do not make one."""
    for folder in (paths.manifests(name), paths.layers(name)):
        if (yield Stat(folder)) is not None:
            return True
    return False


def _unknown_name(name: str) -> NameUnknown:
    return NameUnknown(f"repository {name} does not exist", {"name": name})
