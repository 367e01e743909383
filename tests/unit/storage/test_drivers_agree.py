"""The filesystem driver against the memory driver as its model, over random histories."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storage.driver import StorageDriver, StorageError
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver
from storage.plan import (
    Append,
    Delete,
    Get,
    Keep,
    Move,
    Names,
    Note,
    Open,
    Opened,
    Plan,
    Publish,
    Put,
    PutFolder,
    Step,
    perform,
)

folders = st.sampled_from(["/d", "/d/e", "/dd", "/d.d/e"])
files = st.builds("{}/{}".format, folders, st.sampled_from(["f", "f0", "g"]))
contents = st.binary(max_size=12)
names = st.sampled_from(["link", "index/link", "index/a/link"])


class DriversAgree(RuleBasedStateMachine):
    """What is a folder is never a file here, and no empty folder is looked at: the file system may
    keep one, the model has none."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="drivers-agree-")
        self.files = FilesystemDriver(self.folder.name)
        self.model = MemoryDriver()
        self.runner = asyncio.Runner()

    def teardown(self) -> None:
        self.runner.run(self.files.close())
        self.runner.close()
        self.folder.cleanup()

    def both(self, call: Callable[[StorageDriver], Awaitable[object]]) -> None:
        assert self.outcome(self.files, call) == self.outcome(self.model, call)

    def outcome(
        self, driver: StorageDriver, call: Callable[[StorageDriver], Awaitable[object]]
    ) -> object:
        async def run() -> object:
            try:
                return await call(driver)
            except StorageError as error:
                return error.code, getattr(error, "size", None)

        return self.runner.run(run())

    def ask(self, step: Step) -> None:
        def plan() -> Plan[object]:
            result = yield step
            if isinstance(result, Opened):
                return result.info.size, result.content
            return result

        self.both(lambda driver: perform(driver, plan(), writes=True))

    @rule(path=files, content=contents)
    def put(self, path: str, content: bytes) -> None:
        self.both(lambda driver: driver.put(path, content))

    @rule(path=files, limit=st.integers(0, 12))
    def get(self, path: str, limit: int) -> None:
        self.both(lambda driver: driver.get(path, limit))
        self.ask(Get(path, limit))
        self.ask(Open(path, 12))

    @rule(path=files, offset=st.integers(0, 12), length=st.none() | st.integers(0, 12))
    def read(self, path: str, offset: int, length: int | None) -> None:
        async def read(driver: StorageDriver) -> bytes:
            return b"".join([piece async for piece in driver.read(path, offset, length)])

        self.both(read)

    @rule(path=files, append=st.booleans(), chunks=st.lists(contents, max_size=3))
    def write(self, path: str, *, append: bool, chunks: list[bytes]) -> None:
        async def write(driver: StorageDriver) -> int:
            await driver.put(f"{path.rpartition('/')[0]}/startedat", b"")
            async with await driver.writer(path, append=append) as writer:
                for chunk in chunks:
                    await writer.write(chunk)
                if len(chunks) == 1:
                    await writer.cancel()
                elif chunks:
                    await writer.commit()
                return writer.size

        self.both(write)

    @rule(path=files, offset=st.integers(0, 12), content=contents)
    def append(self, path: str, offset: int, content: bytes) -> None:
        self.ask(Note(f"{path.rpartition('/')[0]}/startedat", b""))
        if self.runner.run(self.model.stat(path)) is None:
            offset = 0
        self.ask(Append(path, offset, content))

    @rule(source=files, goal=files)
    def move(self, source: str, goal: str) -> None:
        self.both(lambda driver: driver.move(source, goal))

    @rule(source=files, goal=files, size=st.integers(0, 12), link=files)
    def publish(self, source: str, goal: str, size: int, link: str) -> None:
        self.ask(Publish([[Move(source, goal, size)], [Put(link, b"l")], [Keep(goal)]]))

    @rule(
        folder=st.sampled_from(["/tags/a", "/tags/b"]),
        entries=st.dictionaries(names, contents, min_size=1),
    )
    def put_folder(self, folder: str, entries: dict[str, bytes]) -> None:
        self.ask(Publish([[PutFolder(folder, tuple(entries.items()))]]))

    @rule(path=files | folders | st.just("/tags/a"), at_once=st.booleans(), step=st.booleans())
    def delete(self, path: str, *, at_once: bool, step: bool) -> None:
        if self.runner.run(self.model.stat(path)) is None:
            return
        if step:
            self.ask(Delete(path, at_once))
        else:
            self.both(lambda driver: driver.delete(path))

    @rule(path=folders | st.just("/tags"), after=names, limit=st.none() | st.integers(0, 3))
    def listing(self, path: str, after: str, limit: int | None) -> None:
        listed = self.runner.run(self.files.list(path))
        expected = self.runner.run(self.model.list(path))
        assert self.filled(path, listed) == expected
        if listed == expected:
            self.both(lambda driver: driver.list(path, after, limit))
            self.ask(Names(path, keep=True))

    def filled(self, path: str, listed: list[str]) -> list[str]:
        """Without empty folders."""

        async def has_files(name: str) -> bool:
            below = f"{path}/{name}"
            info = await self.files.stat(below)
            if info is not None and not info.is_folder:
                return True
            return bool([file async for file in self.files.walk(below)])

        return [name for name in listed if self.runner.run(has_files(name))]

    @invariant()
    def the_same_files_are_there(self) -> None:
        async def everything(driver: StorageDriver) -> dict[str, bytes]:
            return {info.path: await driver.get(info.path) async for info in driver.walk("/")}

        self.both(everything)


TestDriversAgree = DriversAgree.TestCase
TestDriversAgree.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
