"""What every storage driver must do with a plan, run whole or step by step."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import pytest

from storage.driver import (
    Busy,
    FileInfo,
    FileTooLarge,
    InvalidOffset,
    InvalidPath,
    PathNotFound,
    StorageDriver,
    StorageError,
)
from storage.plan import (
    Append,
    Delete,
    Entry,
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
    Stat,
    Step,
    perform,
)


def asking(*steps: Step | list[Step]) -> Plan[list[Any]]:
    """Asks for each step, and gives all results."""
    results = []
    for step in steps:
        results.append((yield step))
    return results


async def ask(driver: StorageDriver, *steps: Step | list[Step], writes: bool = True) -> Any:
    """The result of the only step, or of the last."""
    return (await perform(driver, asking(*steps), writes=writes))[-1]


async def publish(driver: StorageDriver, *groups: Sequence[Entry]) -> None:
    assert await ask(driver, Publish(groups)) is None


async def files_of(driver: StorageDriver) -> dict[str, bytes]:
    return {info.path: await driver.get(info.path) async for info in driver.walk("/")}


@pytest.mark.parametrize("writes", [True, False])
async def test_a_plan_gets_results_and_gives_one(driver: StorageDriver, *, writes: bool) -> None:
    await driver.put("/a", b"1")
    await driver.put("/f/b", b"22")

    def plan() -> Plan[tuple[object, ...]]:
        content: bytes | None = yield Get("/a")
        absent: bytes | None = yield Get("/f/absent")
        several: list[object] = yield [Get("/a"), Stat("/f/b"), Names("/f"), Get("/no/such")]
        nothing: list[object] = yield []
        return content, absent, several, nothing

    content, absent, several, nothing = await perform(driver, plan(), writes=writes)
    assert (content, absent, nothing) == (b"1", None, [])
    assert isinstance(several, list)
    assert several[0] == b"1"
    assert isinstance(several[1], FileInfo)
    assert several[1].size == 2
    assert several[2:] == [["b"], None]


async def test_a_plan_without_steps_gives_its_result(driver: StorageDriver) -> None:
    def plan() -> Plan[int]:
        yield from ()
        return 7

    assert await perform(driver, plan()) == 7


async def test_errors_are_thrown_into_the_plan(driver: StorageDriver) -> None:
    await driver.put("/a", b"12345")

    def plan() -> Plan[list[object]]:
        caught: list[object] = []
        try:
            yield Get("/a", 2)
        except FileTooLarge as error:
            caught.append(error.path)
        try:
            yield [Get("/a"), Append("/no/such", 0, b"")]
        except PathNotFound as error:
            caught.append(error.path)
        caught.append((yield Get("/a")))
        return caught

    assert await perform(driver, plan(), writes=True) == ["/a", "/no/such", b"12345"]


async def test_what_a_plan_raises_reaches_its_caller(driver: StorageDriver) -> None:
    cleaned = []

    def plan() -> Plan[None]:
        try:
            yield Stat("/a")
            raise ZeroDivisionError
        finally:
            cleaned.append(True)

    with pytest.raises(ZeroDivisionError):
        await perform(driver, plan())
    assert cleaned

    with pytest.raises(FileTooLarge):
        await driver.put("/a", b"123")
        await ask(driver, Get("/a", 1))


async def test_many_plans_at_once_get_their_own_results(driver: StorageDriver) -> None:
    for number in range(20):
        await driver.put(f"/{number}", str(number).encode())
    plans = [asking(Get(f"/{number % 20}"), Stat(f"/{number % 20}")) for number in range(200)]
    results = await asyncio.gather(*(perform(driver, plan) for plan in plans))
    assert [int(result[0]) for result in results] == [number % 20 for number in range(200)]


async def test_names_are_sorted_and_none_where_nothing_is(driver: StorageDriver) -> None:
    for name in ("b", "a", "B"):
        await driver.put(f"/n/{name}/link", b"")
    for keep in (False, True, True):
        assert await ask(driver, Names("/n", keep=keep)) == ["B", "a", "b"]
        assert await ask(driver, Names("/none", keep=keep)) == []
        assert await ask(driver, Names("/n/a/link", keep=keep)) == []
    await driver.put("/n/c/link", b"")
    await driver.delete("/n/a")
    assert await ask(driver, Names("/n", keep=True)) == ["B", "b", "c"]


@pytest.mark.parametrize("size", [0, 1, 100, 70_000])
async def test_open_reads_small_files_and_opens_others(driver: StorageDriver, size: int) -> None:
    content = bytes(size)
    await driver.put("/blob", content)
    opened = await ask(driver, Open("/blob", 100))
    assert isinstance(opened, Opened)
    assert (opened.info.path, opened.info.size) == ("/blob", size)
    assert opened.content == (content if size <= 100 else None)
    if opened.file is not None:
        assert size > 100
        assert os.pread(opened.file.fileno(), size + 1, 0) == content
        opened.file.close()


async def test_open_gives_nothing_for_folders_and_what_is_absent(driver: StorageDriver) -> None:
    await driver.put("/folder/file", b"x")
    for path in ("/folder", "/absent", "/folder/file/below"):
        assert await ask(driver, Open(path, 100)) is None


async def test_append_begins_and_goes_on(driver: StorageDriver) -> None:
    path = "/up/data"
    await ask(driver, Note("/up/startedat", b"now"), Append(path, 0, b"one"))
    await ask(driver, Append(path, 3, b" two"), Append(path, 7, b""))
    assert await driver.get(path) == b"one two"


@pytest.mark.parametrize("offset", [0, 2, 4])
async def test_append_elsewhere_than_at_the_end_tells_the_size(
    driver: StorageDriver, offset: int
) -> None:
    await driver.put("/up/data", b"123")
    with pytest.raises(InvalidOffset) as caught:
        await ask(driver, Append("/up/data", offset, b"x"))
    assert caught.value.size == 3
    assert await driver.get("/up/data") == b"123"


async def test_append_to_what_is_not_there(driver: StorageDriver) -> None:
    await driver.put("/up/startedat", b"now")
    with pytest.raises(PathNotFound):
        await ask(driver, Append("/none/data", 0, b"x"))
    with pytest.raises(InvalidOffset) as caught:
        await ask(driver, Append("/up/data", 5, b"x"))
    assert caught.value.size == 0
    assert await driver.stat("/none") is None


async def test_append_and_move_are_refused_while_a_writer_is_open(driver: StorageDriver) -> None:
    await driver.put("/up/data", b"12")
    async with await driver.writer("/up/data", append=True):
        with pytest.raises(Busy):
            await ask(driver, Append("/up/data", 2, b"x"))
        with pytest.raises(Busy):
            await publish(driver, [Move("/up/data", "/blob", 2)], [Put("/link", b"x")])
    assert await files_of(driver) == {"/up/data": b"12"}


async def test_appends_at_once_never_mix(driver: StorageDriver) -> None:
    await driver.put("/up/data", b"")

    async def append(letter: bytes) -> bool:
        try:
            await ask(driver, Append("/up/data", 0, letter * 1000))
        except (Busy, InvalidOffset):
            return False
        return True

    done = await asyncio.gather(*(append(bytes([letter])) for letter in b"abcdefgh"))
    assert done.count(True) == 1
    assert await driver.get("/up/data") == b"abcdefgh"[done.index(True) :][:1] * 1000


async def test_note_makes_its_folders_and_replaces(driver: StorageDriver) -> None:
    await ask(driver, Note("/a/b/c", b"a longer note"), Note("/a/b/c", b"short"))
    assert await driver.get("/a/b/c") == b"short"


async def test_publish_makes_all_groups_visible(driver: StorageDriver) -> None:
    await driver.put("/up/data", b"blob")
    await driver.put("/old", b"old")
    await publish(
        driver,
        [Move("/up/data", "/blobs/a/data", 4), Put("/blobs/b/data", b"b")],
        [Put("/links/a", b"la"), Put("/old", b"new")],
        [PutFolder("/tags/t", (("index/i/link", b"x"), ("current/link", b"y")))],
        [],
    )
    assert await files_of(driver) == {
        "/blobs/a/data": b"blob",
        "/blobs/b/data": b"b",
        "/links/a": b"la",
        "/old": b"new",
        "/tags/t/index/i/link": b"x",
        "/tags/t/current/link": b"y",
    }


async def test_publish_of_nothing_does_nothing(driver: StorageDriver) -> None:
    await publish(driver)
    assert await files_of(driver) == {}


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        (Move("/up/none", "/blob", 2), PathNotFound),
        (Move("/none/at/all", "/blob", 2), PathNotFound),
        (Move("/up/data", "/blob", 3), InvalidOffset),
        (Move("/up", "/blob", 0), (PathNotFound, InvalidPath)),
    ],
)
async def test_nothing_is_published_after_a_failed_move(
    driver: StorageDriver, move: Move, expected: Any
) -> None:
    await driver.put("/up/data", b"12")
    with pytest.raises(expected):
        await publish(driver, [move], [Put("/link", b"x"), PutFolder("/tag", (("a", b""),))])
    assert await files_of(driver) == {"/up/data": b"12"}


async def test_a_move_replaces_what_is_there(driver: StorageDriver) -> None:
    await driver.put("/up/data", b"")
    await driver.put("/blob", b"broken")
    await publish(driver, [Move("/up/data", "/blob", 0)])
    assert await files_of(driver) == {"/blob": b""}


async def test_keep_leaves_the_file_and_needs_none(driver: StorageDriver) -> None:
    await driver.put("/blob", b"x")
    await publish(driver, [Keep("/blob"), Keep("/gone"), Keep("/no/folder")], [Put("/l", b"y")])
    assert await files_of(driver) == {"/blob": b"x", "/l": b"y"}


async def test_put_folder_adds_to_a_folder_that_is_there(driver: StorageDriver) -> None:
    for digest in ("d1", "d2", "d2"):
        link = digest.encode()
        await publish(
            driver, [PutFolder("/tags/t", ((f"index/{digest}/link", link), ("current/link", link)))]
        )
    assert await files_of(driver) == {
        "/tags/t/index/d1/link": b"d1",
        "/tags/t/index/d2/link": b"d2",
        "/tags/t/current/link": b"d2",
    }
    assert await ask(driver, Names("/tags")) == ["t"]


@pytest.mark.parametrize("there", [True, False])
async def test_put_folders_at_once_leave_all_files(driver: StorageDriver, *, there: bool) -> None:
    def folder(tag: int, number: int) -> PutFolder:
        link = str(number).encode()
        path = f"index/sha256/deep/{number % 3}/link"
        return PutFolder(f"/tags/{tag}", ((path, link), ("current/link", link)))

    for tag in range(5):
        if there:
            await publish(driver, [PutFolder(f"/tags/{tag}", (("current/link", b"0"),))])
        await asyncio.gather(*(publish(driver, [folder(tag, number)]) for number in range(12)))
        found = {
            info.path.removeprefix(f"/tags/{tag}/"): await driver.get(info.path)
            async for info in driver.walk(f"/tags/{tag}")
        }
        current = found.pop("current/link")
        assert sorted(found) == [f"index/sha256/deep/{n}/link" for n in range(3)]
        assert all(int(link) % 3 == int(path.split("/")[3]) for path, link in found.items())
        assert 0 <= int(current) < 12


async def test_put_folder_and_delete_at_once_end_in_one_or_the_other(
    driver: StorageDriver,
) -> None:
    files = (("index/d/link", b"d"), ("current/link", b"d"))
    for _ in range(10):
        await asyncio.gather(
            publish(driver, [PutFolder("/tags/t", files)]),
            ask(driver, Delete("/tags/t", at_once=True)),
            publish(driver, [PutFolder("/tags/t", files)]),
        )
        await publish(driver, [PutFolder("/tags/t", files)])
        assert await files_of(driver) == {
            "/tags/t/index/d/link": b"d",
            "/tags/t/current/link": b"d",
        }
        assert await ask(driver, Names("/")) == ["tags"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_delete_tells_whether_there_was_something(
    driver: StorageDriver, *, at_once: bool
) -> None:
    for path in ("/t/a/b", "/t/a/c/d", "/t/ab", "/t/e"):
        await driver.put(path, b"")
    assert await ask(driver, Delete("/t/a", at_once)) is True
    assert await ask(driver, Delete("/t/a", at_once)) is False
    assert await ask(driver, Delete("/t/e", at_once)) is True
    assert await ask(driver, Delete("/t/e/f", at_once)) is False
    assert await ask(driver, Delete("/u/v", at_once)) is False
    assert sorted(await files_of(driver)) == ["/t/ab"]
    assert await ask(driver, Names("/t")) == ["ab"]


async def test_the_files_that_a_deleted_folder_is_thought_to_have_are_only_a_hint(
    driver: StorageDriver,
) -> None:
    for name in ("a", "b/c", "b/d/e"):
        await driver.put(f"/t/{name}", b"")
    for hint in ((), ("a",), ("a", "b/c", "b/d/e"), ("none", "b/none", "x/y")):
        await driver.put("/t/a", b"")
        await driver.put("/beside", b"")
        assert await ask(driver, Delete("/t", files=hint)) is True
        assert await ask(driver, Delete("/t", files=hint)) is False
        assert sorted(await files_of(driver)) == ["/beside"]


async def test_deletes_at_once_all_end(driver: StorageDriver) -> None:
    for number in range(30):
        await driver.put(f"/t/{number % 3}/{number}", b"")
    step = Delete("/t", at_once=True)
    results = await asyncio.gather(*(ask(driver, step) for _ in range(6)))
    assert True in results
    assert await files_of(driver) == {}


BAD: tuple[Step, ...] = (
    Get("/../x"),
    Stat("x"),
    Names("/a/"),
    Open("/a/../b"),
    Append("/.", 0, b""),
    Note("/a b", b""),
    Delete("/"),
    Delete(""),
    Publish([[Put("/good", b"")], [Put("/a/./b", b"")]]),
    Publish([[Move("/..", "/b", 0)]]),
    Publish([[Move("/b", "/..", 0)]]),
    Publish([[PutFolder("/t/..", (("a", b""),))]]),
    Publish([[PutFolder("/t", (("../a", b""),))]]),
    Publish([[PutFolder("/t", (("", b""),))]]),
)


@pytest.mark.parametrize("step", BAD, ids=repr)
@pytest.mark.parametrize("in_list", [True, False])
async def test_bad_paths_are_refused_in_every_step(
    checked: StorageDriver, step: Step, *, in_list: bool
) -> None:
    def plan() -> Plan[str]:
        try:
            yield [step] if in_list else step
        except StorageError as error:
            return error.code
        return "accepted"

    await checked.put("/b", b"")
    assert await perform(checked, plan(), writes=True) == "INVALID_PATH"
    assert set(await files_of(checked)) <= {"/b", "/good"}


async def test_the_root_may_be_listed_by_a_plan(checked: StorageDriver) -> None:
    await checked.put("/a/b", b"")
    assert await ask(checked, Names("/")) == ["a"]
    assert (await ask(checked, Stat("/"))).is_folder
