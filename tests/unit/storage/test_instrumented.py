from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.driver import BlockingWriter, Busy, InvalidPath, PathNotFound, StorageDriver
from storage.filesystem import FilesystemDriver
from storage.instrumented import DURATION, ERRORS, instrument
from storage.memory import MemoryDriver
from storage.plan import (
    Append,
    Delete,
    Get,
    Keep,
    LocalPlans,
    Move,
    Names,
    Note,
    Open,
    Plan,
    Publish,
    Put,
    Stat,
    Step,
    perform,
)
from tests.unit.storage.recorder import Recorded


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture(params=["filesystem", "memory"])
async def driver(
    request: pytest.FixtureRequest, tmp_path: Path, recorded: Recorded
) -> AsyncIterator[StorageDriver]:
    inner = FilesystemDriver(str(tmp_path)) if request.param == "filesystem" else MemoryDriver()
    made = instrument(inner, recorded)
    yield made
    await made.close()


def took(recorded: Recorded) -> dict[str, int]:
    """How often each operation was measured, by its last name."""
    assert {key[0] for key in recorded.observed} <= {DURATION}
    return {key[1].removeprefix("StorageDriver."): n for key, n in recorded.observed.items()}


def failed(recorded: Recorded) -> dict[tuple[str, str], int]:
    assert {key[0] for key in recorded.added} <= {ERRORS}
    return {(key[1].removeprefix("StorageDriver."), key[2]): n for key, n in recorded.added.items()}


def test_whole_plans_and_blocking_writers_are_offered_only_where_the_driver_has_them(
    tmp_path: Path, recorded: Recorded
) -> None:
    async def writer_of(driver: StorageDriver) -> bool:
        async with await driver.writer("/f", append=False) as writer:
            return isinstance(writer, BlockingWriter)

    async def check() -> None:
        files = instrument(FilesystemDriver(str(tmp_path)), recorded)
        memory = instrument(MemoryDriver(), recorded)
        assert (files.name, memory.name) == ("filesystem", "inmemory")
        assert isinstance(files, LocalPlans)
        assert not isinstance(memory, LocalPlans)
        assert await writer_of(files)
        assert not await writer_of(memory)
        await files.close()

    asyncio.run(check())


async def test_every_verb_is_measured(driver: StorageDriver, recorded: Recorded) -> None:
    await driver.put("/a/b", b"x")
    await driver.get("/a/b")
    await driver.stat("/a/b")
    await driver.list("/a")
    await driver.move("/a/b", "/a/c")
    await driver.redirect_url("/a/c", "GET")
    assert [piece async for piece in driver.read("/a/c")] == [b"x"]
    assert [info.path async for info in driver.walk("/a")] == ["/a/c"]
    async with await driver.writer("/a/d", append=True) as writer:
        await writer.write(b"x")
        await writer.commit()
    await driver.delete("/a")
    operations = "GetContent PutContent Reader Writer Stat List Move Delete URLFor Walk"
    assert took(recorded) == dict.fromkeys(operations.split(), 1)
    assert failed(recorded) == {}


async def test_every_step_of_a_whole_plan_is_measured(tmp_path: Path, recorded: Recorded) -> None:
    driver = instrument(FilesystemDriver(str(tmp_path)), recorded)

    def plan() -> Plan[None]:
        yield Note("/up/started", b"")
        yield Append("/up/data", 0, b"x")
        yield Publish([[Move("/up/data", "/blob", 1)], [Put("/link", b"")]])
        yield Publish([[Put("/link", b"")]])
        yield [Get("/link"), Get("/absent"), Stat("/blob"), Names("/")]
        yield Open("/blob")
        yield Delete("/up")

    await perform(driver, plan(), writes=True)
    await driver.close()
    assert took(recorded) == {
        "PutContent": 2,
        "Writer": 1,
        "Move": 1,
        "GetContent": 2,
        "Stat": 1,
        "List": 1,
        "Reader": 1,
        "Delete": 1,
    }
    assert failed(recorded) == {}


async def test_errors_are_counted_by_operation_and_code(
    driver: StorageDriver, recorded: Recorded
) -> None:
    await driver.put("/a", b"123")
    for call in (
        driver.get("/a", 1),
        driver.move("/no", "/b"),
        driver.writer("/no/folder/data", append=True),
        driver.stat("/.."),
    ):
        with pytest.raises(Exception, match=r"/"):
            await call
    assert failed(recorded) == {
        ("GetContent", "FILE_TOO_LARGE"): 1,
        ("Move", "PATH_NOT_FOUND"): 1,
        ("Writer", "PATH_NOT_FOUND"): 1,
        ("Stat", "INVALID_PATH"): 1,
    }


async def test_answers_are_not_counted_as_errors(driver: StorageDriver, recorded: Recorded) -> None:
    await driver.put("/up/data", b"")
    with pytest.raises(PathNotFound):
        await driver.get("/no")
    with pytest.raises(PathNotFound):
        await driver.delete("/no")
    assert await driver.stat("/no") is None
    async with await driver.writer("/up/data", append=True):
        with pytest.raises(Busy):
            await driver.move("/up/data", "/b")

    def plan() -> Plan[list[object]]:
        answers: list[object] = yield [Get("/no"), Open("/no"), Stat("/no"), Delete("/no")]
        return answers

    assert await perform(driver, plan(), writes=True) == [None, None, None, False]
    assert failed(recorded) == {}


async def test_errors_of_an_open_writer_are_counted(
    driver: StorageDriver, recorded: Recorded
) -> None:
    async with await driver.writer("/data", append=False) as writer:
        await writer.commit()
        for call in (writer.write(b"x"), writer.cancel(), writer.commit()):
            with pytest.raises(Exception, match="closed"):
                await call
        if isinstance(writer, BlockingWriter):
            with pytest.raises(Exception, match="closed"):
                writer.write_now(b"x")
            recorded.add(ERRORS, "StorageDriver.Writer", "UNKNOWN", by=-1)
    assert failed(recorded) == {("Writer", "UNKNOWN"): 3}


@pytest.mark.parametrize(
    ("step", "path"),
    [
        (Publish([[Keep("/a/../b")]]), "/a/../b"),
        (Delete("/a", files=("b", "../c")), "/a/../c"),
        (Publish([[Put("/good", b"")], [Move("/good", "/..", 0)]]), "/.."),
    ],
)
async def test_all_paths_of_a_step_are_checked_before_it_is_begun(
    tmp_path: Path, recorded: Recorded, step: Step, path: str
) -> None:
    driver = instrument(FilesystemDriver(str(tmp_path)), recorded)

    def plan() -> Plan[str]:
        try:
            yield step
        except InvalidPath as error:
            return error.path
        return "accepted"

    assert await perform(driver, plan()) == path
    assert await driver.list("/") == []
    await driver.close()
    assert [code for _, code in failed(recorded)] == ["INVALID_PATH"]


async def test_the_time_that_a_reader_takes_is_not_the_storages(
    driver: StorageDriver, recorded: Recorded
) -> None:
    for name in ("a", "b", "c"):
        await driver.put(f"/w/{name}", b"")
    before = recorded.seconds
    async for _ in driver.walk("/w"):
        await asyncio.sleep(0.1)
    assert recorded.seconds - before < 0.2
