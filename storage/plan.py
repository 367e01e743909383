"""A plan: a generator that asks for storage steps and is sent their results.

What the registry does to storage for one request is written once, as plain code without I/O. A
driver of local files runs a whole plan in one worker thread (one hand-over per request instead of
one per file, and the folder syncs of a step shared); any other driver gets the steps one after the
other, and those of a list at once.

    def member(link: str) -> Plan[bool]:
        content = yield Get(link)
        return content is not None
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeGuard, TypeVar, runtime_checkable

from storage.driver import GET_LIMIT, FileInfo, InvalidOffset, PathNotFound, StorageDriver

T = TypeVar("T")

PARALLEL: Final = 16
"""steps of one list that run at once on a driver without local files"""


@dataclass(frozen=True, slots=True)
class Get:
    """-> the file's bytes, or None where it is absent. Raises FileTooLarge."""

    path: str
    limit: int = GET_LIMIT


@dataclass(frozen=True, slots=True)
class Stat:
    """-> FileInfo or None."""

    path: str


@dataclass(frozen=True, slots=True)
class Names:
    """-> the sorted names right below a folder, as a list that must not be changed; empty where it
    is absent.

    With `keep`, a driver may remember them for as long as one stat proves that the folder has not
    changed.
    """

    path: str
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """-> Opened, or None where the file is absent. Up to `inline` bytes are read at once."""

    path: str
    inline: int = 0


@dataclass(frozen=True, slots=True)
class Append:
    """Appends `content` to the file at `path`, which must have `offset` bytes; made when `offset`
    is 0 and its folder is there. Durable. -> None. Raises PathNotFound, InvalidOffset, Busy."""

    path: str
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """Writes a small new file for which a reader takes a torn one as absent: not durable, never a
    rename. -> None."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Put:
    """One file of a Publish."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Move:
    """One file of a Publish: `source`, which must have `size` bytes and no open writer, gets the
    name `target`. `durable`: whatever wrote it has synced all of it."""

    source: str
    target: str
    size: int
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """A file of a Publish that another request has put there: only made sure to be durable,
    and young where the storage keeps times. Nothing
    if it is gone."""

    path: str


@dataclass(frozen=True, slots=True)
class PutFolder:
    """One folder of a Publish: where `path` is not there, it appears with all `files` (by path
    below it) at once; where it is, the files are put one after the other, in their order."""

    path: str
    files: tuple[tuple[str, bytes], ...]


Entry = Put | Move | Keep | PutFolder


@dataclass(frozen=True, slots=True)
class Publish:
    """Makes files visible, group by group: a group is durable before the next one appears. -> None.

    Raises PathNotFound, InvalidOffset, Busy (of a Move), OutOfSpace, ReadOnly.
    """

    groups: Sequence[Sequence[Entry]]


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes a file or folder -> True, or False where it was not there. With `at_once`, a folder
    is gone for every reader in one step where the driver can.

    `files` are those that a folder is thought to have, by their paths below it: a hint that saves
    looking.
    """

    path: str
    at_once: bool = False
    files: tuple[str, ...] = ()


Step = Get | Stat | Names | Open | Append | Note | Publish | Delete
Plan = Generator[Step | list[Step], Any, T]


class LocalFile(Protocol):
    """An open local file, to be closed by whoever gets it."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Opened:
    """`content` where it was read at once, else `file` where the driver has local files, else
    neither: use `read`."""

    info: FileInfo
    content: bytes | None = None
    file: LocalFile | None = field(default=None)


@runtime_checkable
class LocalPlans(Protocol):
    """A driver that runs a whole plan in one worker thread."""

    async def perform(self, plan: Plan[T], *, writes: bool) -> T:
        """`writes` is True for plans that sync, or read much: they get a thread of their own."""
        ...


_RUNS_PLANS: Final[dict[type, bool]] = {}


def runs_plans(driver: StorageDriver) -> TypeGuard[LocalPlans]:
    """Whether the driver is a LocalPlans; remembered by its class, as such a check is slow."""
    kind = type(driver)
    known = _RUNS_PLANS.get(kind)
    if known is None:
        known = _RUNS_PLANS[kind] = isinstance(driver, LocalPlans)
    return known


async def perform(driver: StorageDriver, plan: Plan[T], *, writes: bool = False) -> T:
    """Runs `plan` to its end and gives its result. Storage errors are thrown into the plan."""
    if runs_plans(driver):
        return await driver.perform(plan, writes=writes)
    gate = asyncio.Semaphore(PARALLEL)

    async def gated(step: Step) -> Any:
        async with gate:
            return await _step(driver, step)

    try:
        asked = next(plan)
        while True:
            try:
                if isinstance(asked, list):
                    result: Any = await asyncio.gather(*(gated(step) for step in asked))
                else:
                    result = await _step(driver, asked)
            except Exception as error:
                asked = plan.throw(error)
            else:
                asked = plan.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's result is untyped in StopIteration


async def _step(driver: StorageDriver, step: Step) -> Any:
    match step:
        case Get(path, limit):
            try:
                return await driver.get(path, limit)
            except PathNotFound:
                return None
        case Stat(path):
            return await driver.stat(path)
        case Names(path):
            return await driver.list(path)
        case Open(path, inline):
            return await _open(driver, path, inline)
        case Append(path, offset, content):
            async with await driver.writer(path, append=True) as writer:
                if writer.size != offset:
                    raise InvalidOffset(path, writer.size)
                await writer.write(content)
                await writer.commit()
        case Note(path, content):
            await driver.put(path, content)
        case Publish(groups):
            for group in groups:
                await asyncio.gather(*(_publish(driver, entry) for entry in group))
        case Delete(path):
            try:
                await driver.delete(path)
            except PathNotFound:
                return False
            return True
    return None


async def _open(driver: StorageDriver, path: str, inline: int) -> Opened | None:
    info = await driver.stat(path)
    if info is None or info.is_folder:
        return None
    if info.size > inline:
        return Opened(info)
    try:
        return Opened(info, await driver.get(path, inline))
    except PathNotFound:
        return None


async def _publish(driver: StorageDriver, entry: Entry) -> None:
    match entry:
        case Put(path, content):
            await driver.put(path, content)
        case Move(source, target, size):
            info = await driver.stat(source)
            if info is None:
                raise PathNotFound(source)
            if info.size != size:
                raise InvalidOffset(source, info.size)
            await driver.move(source, target)
        case PutFolder(path, files):
            for name, content in files:
                await driver.put(f"{path}/{name}", content)
