"""SIGKILL before each system call that a push makes on storage, one run for each call.

    python -m tests.load.every_call

Each run is a process that pushes, moves a tag and deletes, and dies before its n-th call. Another
process then looks at what it left: what was done is there, what can be seen is whole, and the same
again, without a kill, comes to its end. Runs until n is more than the calls that there are.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from oci.descriptor import OCI_MANIFEST
from oci.digest import Digest
from oci.errors import ManifestUnknown, NameUnknown, RegistryError
from oci.reference import Reference
from registry.metadata import StorageMetadata
from registry.repository import ALWAYS
from registry.stored import StoredRegistry
from storage.filesystem import FilesystemDriver
from tests.fakes.body import MemoryBody
from tests.fakes.images import descriptor, image, push
from tests.load.inspector import Inspector
from tests.load.ledger import Blob, Ledger
from tests.load.wire import Violation

NAME: Final = "it/killed"
MOUNTED: Final = "it/mounted"
BIG: Final = Blob.make(1, 200_000).content()
SMALL: Final = b"{}"
FIRST: Final = image(BIG, config=SMALL)
SECOND: Final = image(BIG, config=SMALL, annotations={"number": "2"})
ABOUT: Final = image(config=SMALL, subject=descriptor(FIRST, OCI_MANIFEST))

Step = Callable[[StoredRegistry], Awaitable[None]]


class KillBefore:
    """A profile function: it kills the process before the n-th system call of the storage."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._lock = threading.Lock()

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or called.__module__ not in ("posix", "fcntl"):
            return
        if "/storage/" not in frame.f_code.co_filename or called.__name__ == "fspath":
            return
        with self._lock:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


async def push_in_parts(registry: StoredRegistry) -> None:
    upload = await registry.start_upload(NAME, "sha256")
    upload = await registry.append_upload(upload, MemoryBody(BIG[:60_000], BIG[60_000:150_000]))
    upload = await registry.append_upload(upload, MemoryBody(BIG[150_000:160_000]))
    await registry.finish_upload(upload, MemoryBody(BIG[160_000:]), Digest.of(BIG))


async def push_at_once(registry: StoredRegistry) -> None:
    upload = await registry.start_upload(NAME, "sha256")
    await registry.finish_upload(upload, MemoryBody(SMALL), Digest.of(SMALL))


async def push_again(registry: StoredRegistry) -> None:
    await push_at_once(registry)


async def mount(registry: StoredRegistry) -> None:
    assert await registry.mount_blob(MOUNTED, Digest.of(BIG), NAME)


async def tag(registry: StoredRegistry) -> None:
    await registry.put_manifest(NAME, push(FIRST, "v1", "other"))


async def move_tag(registry: StoredRegistry) -> None:
    await registry.put_manifest(NAME, push(SECOND, "v1"))


async def refer(registry: StoredRegistry) -> None:
    await registry.put_manifest(NAME, push(ABOUT))


async def delete_tag(registry: StoredRegistry) -> None:
    await registry.delete_tag(NAME, "other", ALWAYS)


async def delete_manifest(registry: StoredRegistry) -> None:
    await registry.delete_manifest(NAME, Digest.of(SECOND))


async def unlink_blob(registry: StoredRegistry) -> None:
    await registry.delete_blob(MOUNTED, Digest.of(BIG))


STEPS: Final[tuple[Step, ...]] = (
    push_in_parts,
    push_at_once,
    push_again,
    mount,
    tag,
    move_tag,
    refer,
    delete_tag,
    delete_manifest,
    unlink_blob,
)


def registry_over(root: Path) -> StoredRegistry:
    driver = FilesystemDriver(str(root))
    return StoredRegistry(driver, StorageMetadata(driver))


async def take_steps(root: Path, done: Callable[[], None]) -> None:
    registry = registry_over(root)
    for step in STEPS:
        await step(registry)
        done()


async def check(root: Path, done: int) -> None:
    """Raises Violation unless the first `done` steps can be seen, and the next one not at all, or
    as far as nobody is misled."""
    registry = registry_over(root)
    inspector = Inspector(Ledger(), root, port=0)
    inspector.check_blob_files(set())
    inspector.check_links()
    finished = {step.__name__ for step in STEPS[:done]}
    begun = {step.__name__ for step in STEPS[: done + 1]}
    for blob, step in ((BIG, "push_in_parts"), (SMALL, "push_at_once")):
        if step in finished:
            await _same_blob(registry, NAME, blob)
    if "mount" in finished and "unlink_blob" not in begun:
        await _same_blob(registry, MOUNTED, BIG)
    await _check_tag(registry, "v1", _possible_v1(finished, begun))
    await _check_tag(registry, "other", _possible(FIRST, "tag", "delete_tag", finished, begun))
    if "refer" in finished:
        referrers = await registry.referrers(NAME, Digest.of(FIRST))
        if [referrer.digest for referrer in referrers] != [Digest.of(ABOUT)]:
            raise Violation(f"the referrers are {referrers}")
    with suppress(NameUnknown):
        for listed in (await registry.tags(NAME, "", 100)).names:
            await _whole(registry, await _read(registry, listed))


def _possible(
    content: bytes, made: str, removed: str, finished: set[str], begun: set[str]
) -> set[bytes | None]:
    possible: set[bytes | None] = set()
    if made in begun and removed not in finished:
        possible.add(content)
    if made not in finished or removed in begun:
        possible.add(None)
    return possible


def _possible_v1(finished: set[str], begun: set[str]) -> set[bytes | None]:
    possible = _possible(SECOND, "move_tag", "delete_manifest", finished, begun)
    if "move_tag" in finished:
        return possible
    possible.discard(None)
    return possible | _possible(FIRST, "tag", "delete_manifest", finished, begun)


async def _check_tag(registry: StoredRegistry, name: str, possible: set[bytes | None]) -> None:
    try:
        found: bytes | None = await _read(registry, name)
    except (ManifestUnknown, NameUnknown):
        found = None
    if found not in possible:
        raise Violation(f"tag {name} is {found!r}, and can only be one of {possible}")


async def _read(registry: StoredRegistry, tag: str) -> bytes:
    return (await registry.get_manifest(NAME, Reference(tag, None))).content


async def _whole(registry: StoredRegistry, manifest: bytes) -> None:
    for blob in (SMALL, BIG) if manifest != ABOUT else (SMALL,):
        await _same_blob(registry, NAME, blob)


async def _same_blob(registry: StoredRegistry, name: str, content: bytes) -> None:
    try:
        blob = await registry.open_blob(name, Digest.of(content))
    except RegistryError as error:
        raise Violation(str(error)) from error
    parts = [part async for part in blob.read(0, blob.size)]
    blob.close()
    if b"".join(parts) != content:
        raise Violation(f"{name}: blob {blob.digest} has another content")


def _mark(pipe: int) -> None:
    os.write(pipe, b".")


def in_a_child(work: Callable[[Callable[[], None]], None]) -> tuple[int, int]:
    """The exit code of a process that did the work, negative for a signal, and how often it called
    what it was given."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work(lambda: _mark(writer))
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as pipe:
        count = len(pipe.read())
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), count


def kill_before(number: int, folder: Path) -> bool:
    """One run; False where it came to its end. Raises Violation."""
    root = folder / str(number)
    root.mkdir()

    def be_killed(done: Callable[[], None]) -> None:
        threading.setprofile(KillBefore(number))
        asyncio.run(take_steps(root, done))

    def inspect(done: Callable[[], None]) -> None:
        asyncio.run(check(root, finished))

    def repeat(done: Callable[[], None]) -> None:
        asyncio.run(take_steps(root, done))
        asyncio.run(check(root, len(STEPS)))

    code, finished = in_a_child(be_killed)
    if code not in (0, -signal.SIGKILL):
        raise Violation(f"the run before call {number} ended with {code}")
    for work in (inspect, repeat):
        if in_a_child(work)[0] != 0:
            raise Violation(
                f"{work.__name__}: killed before call {number}, {finished} steps were done: {root}"
            )
    shutil.rmtree(root)
    return code != 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.load.every_call")
    parser.add_argument("--stride", type=int, default=1, help="only before every n-th call")
    args = parser.parse_args()
    # A killed process loses nothing that the kernel has, so memory is as good as a disk.
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="kill-", dir=memory if memory.is_dir() else None))
    number, kills = args.stride, 0
    try:
        while kill_before(number, folder):
            number += args.stride
            kills += 1
    except Violation as violation:
        print(f"VIOLATION: {violation}")
        return 1
    shutil.rmtree(folder)
    print(f"{kills} kills before one of about {number} calls: no promise broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
