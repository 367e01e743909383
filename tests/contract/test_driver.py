"""What every storage driver must do: its verbs. `test_driver_plans.py` has the steps of plans."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

import pytest

from storage.driver import (
    BlockingWriter,
    Busy,
    FileTooLarge,
    InvalidOffset,
    InvalidPath,
    PathNotFound,
    StorageDriver,
    Unavailable,
)

MIB = 1024 * 1024


async def content_of(driver: StorageDriver, path: str) -> bytes:
    return b"".join([piece async for piece in driver.read(path)])


async def paths_of(driver: StorageDriver, path: str) -> list[str]:
    return sorted([info.path async for info in driver.walk(path)])


async def write(driver: StorageDriver, path: str, *chunks: bytes, append: bool = True) -> None:
    async with await driver.writer(path, append=append) as writer:
        for chunk in chunks:
            await writer.write(chunk)
        await writer.commit()


async def test_put_is_read_back_and_replaced(driver: StorageDriver) -> None:
    for content in (b"first", b"", b"the second one is longer"):
        await driver.put("/a/b/c", content)
        assert await driver.get("/a/b/c") == content
        assert await content_of(driver, "/a/b/c") == content
        info = await driver.stat("/a/b/c")
        assert info is not None
        assert (info.path, info.size, info.is_folder) == ("/a/b/c", len(content), False)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, MIB + 1])
async def test_get_reads_up_to_its_limit(driver: StorageDriver, size: int) -> None:
    content = bytes(size)
    await driver.put("/f", content)
    assert await driver.get("/f", size) == content
    assert await driver.get("/f", size + 1) == content
    if size:
        with pytest.raises(FileTooLarge):
            await driver.get("/f", size - 1)


async def test_what_is_absent_is_not_found(driver: StorageDriver) -> None:
    await driver.put("/folder/file", b"x")
    for path in ("/no", "/no/such", "/folder", "/folder/file/below"):
        with pytest.raises(PathNotFound):
            await driver.get(path)
        with pytest.raises(PathNotFound):
            await content_of(driver, path)
        with pytest.raises(PathNotFound):
            await driver.move(path, "/target")
    assert await driver.stat("/no") is None
    assert await driver.stat("/folder/file/below") is None
    assert await driver.list("/no") == []
    assert await paths_of(driver, "/no") == []
    with pytest.raises(PathNotFound):
        await driver.delete("/no")


async def test_stat_tells_folders_from_files(driver: StorageDriver) -> None:
    await driver.put("/a/b", b"123")
    folder, root = await driver.stat("/a"), await driver.stat("/")
    assert folder is not None
    assert folder.is_folder
    assert folder.size == 0
    assert root is not None
    assert root.is_folder


async def test_modified_times_grow(driver: StorageDriver) -> None:
    await driver.put("/a", b"1")
    first = await driver.stat("/a")
    await asyncio.sleep(0.02)
    await driver.put("/a", b"2")
    second = await driver.stat("/a")
    assert first is not None
    assert second is not None
    assert first.modified < second.modified


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, None), (0, 5), (3, None), (3, 4), (10, None), (10, 5), (4, 0), (0, 99)],
)
async def test_read_gives_the_part_asked_for(
    driver: StorageDriver, offset: int, length: int | None
) -> None:
    content = b"0123456789"
    await driver.put("/f", content)
    end = None if length is None else offset + length
    pieces = [piece async for piece in driver.read("/f", offset, length)]
    assert b"".join(pieces) == content[offset:end]
    assert all(pieces)


async def test_read_beyond_the_end_tells_the_size(driver: StorageDriver) -> None:
    await driver.put("/f", b"0123456789")
    with pytest.raises(InvalidOffset) as caught:
        async for _ in driver.read("/f", 11):
            pass
    assert caught.value.size == 10


async def test_read_of_a_large_file_comes_in_pieces_and_may_be_left(driver: StorageDriver) -> None:
    content = bytes(range(256)) * (3 * MIB // 256) + b"end"
    await driver.put("/f", content)
    pieces = [piece async for piece in driver.read("/f")]
    assert len(pieces) > 1
    assert b"".join(pieces) == content
    reading = driver.read("/f", 1)
    async with aclosing(reading):  # type: ignore[type-var]  # every driver's is a generator
        async for piece in reading:
            assert piece == content[1 : 1 + len(piece)]
            break
    await driver.delete("/f")


async def test_a_file_is_no_folder_and_a_folder_no_file(driver: StorageDriver) -> None:
    await driver.put("/a/file", b"x")
    with pytest.raises(PathNotFound):
        await driver.put("/a/file/below", b"y")
    with pytest.raises(PathNotFound):
        await driver.writer("/a/file/below", append=True)
    with pytest.raises(InvalidPath):
        await driver.put("/a", b"y")
    with pytest.raises(InvalidPath):
        await driver.writer("/a", append=False)
    await driver.put("/other", b"z")
    with pytest.raises(InvalidPath):
        await driver.move("/other", "/a")
    assert await driver.get("/a/file") == b"x"
    assert await driver.get("/other") == b"z"


async def test_list_is_one_level_sorted_by_bytes_and_paged(driver: StorageDriver) -> None:
    names = ["A", "Z", "_x", "a", "a-1", "a.b", "a0", "b"]
    for name in reversed(names):
        await driver.put(f"/l/{name}/deeper/file", b"")
    await driver.put("/l/c", b"")
    names.append("c")
    assert await driver.list("/l") == names
    assert await driver.list("/l", limit=3) == names[:3]
    assert await driver.list("/l", "_x", 2) == ["a", "a-1"]
    assert await driver.list("/l", "a.") == ["a.b", "a0", "b", "c"]
    assert await driver.list("/l", "c") == []
    assert await driver.list("/l", limit=0) == []
    assert await driver.list("/") == ["l"]
    assert await driver.list("/l/c") == []


async def test_pages_of_a_list_give_each_name_once(driver: StorageDriver) -> None:
    for number in range(25):
        await driver.put(f"/l/{number:02}", b"")
    seen: list[str] = []
    while page := await driver.list("/l", seen[-1] if seen else "", 7):
        seen += page
    assert seen == [f"{number:02}" for number in range(25)]


async def test_walk_finds_every_file_below(driver: StorageDriver) -> None:
    files = {"/w/a": 1, "/w/b/c": 2, "/w/b/d/e": 0, "/w/b/d/f": 4}
    for path, size in files.items():
        await driver.put(path, bytes(size))
    await driver.put("/wide", b"")
    found = {info.path: info.size async for info in driver.walk("/w")}
    assert found == files
    assert await paths_of(driver, "/") == [*files, "/wide"]
    assert await paths_of(driver, "/w/a") == []


async def test_walk_goes_on_while_files_go(driver: StorageDriver) -> None:
    for number in range(50):
        await driver.put(f"/w/{number % 7}/{number}", b"x")
    await driver.put("/w/stays", b"x")
    found = []
    async for info in driver.walk("/w"):
        found.append(info.path)
        if len(found) == 1:
            for folder in range(7):
                await driver.delete(f"/w/{folder}")
    assert set(found) >= {"/w/stays"} or found[0] == "/w/stays"


async def test_move_renames_over_an_existing_file_and_makes_folders(driver: StorageDriver) -> None:
    await driver.put("/from/a", b"new")
    await driver.put("/to/here", b"old")
    await driver.move("/from/a", "/to/here")
    assert await driver.get("/to/here") == b"new"
    assert await driver.stat("/from/a") is None
    await driver.move("/to/here", "/quite/another/place")
    assert await driver.get("/quite/another/place") == b"new"


async def test_move_waits_for_no_writer(driver: StorageDriver) -> None:
    await driver.put("/up/data", b"")
    async with await driver.writer("/up/data", append=True) as writer:
        await writer.write(b"half")
        with pytest.raises(Busy):
            await driver.move("/up/data", "/blob")
    assert await driver.stat("/blob") is None
    await driver.move("/up/data", "/blob")
    assert await driver.get("/blob") == b"half"


async def test_delete_takes_a_folder_and_nothing_beside_it(driver: StorageDriver) -> None:
    for path in ("/a/x", "/a/y/z", "/ab", "/a.b/c", "/a-", "/b"):
        await driver.put(path, b"1")
    await driver.delete("/a")
    assert await paths_of(driver, "/") == ["/a-", "/a.b/c", "/ab", "/b"]
    assert await driver.stat("/a") is None
    await driver.delete("/ab")
    assert await paths_of(driver, "/") == ["/a-", "/a.b/c", "/b"]
    with pytest.raises(PathNotFound):
        await driver.delete("/a")


async def test_what_was_deleted_can_be_put_again(driver: StorageDriver) -> None:
    for round in range(3):
        await driver.put("/a/b/c", bytes([round]))
        assert await driver.get("/a/b/c") == bytes([round])
        await driver.delete("/a")


async def test_a_writer_goes_on_where_the_last_one_left(driver: StorageDriver) -> None:
    await driver.put("/up/startedat", b"now")
    async with await driver.writer("/up/data", append=True) as writer:
        assert writer.size == 0
        await writer.write(b"one ")
        await writer.write(memoryview(b"two "))
        assert writer.size == 8
    async with await driver.writer("/up/data", append=True) as writer:
        assert writer.size == 8
        await writer.write(bytearray(b"three"))
        assert writer.size == 13
        await writer.commit()
    assert await driver.get("/up/data") == b"one two three"


async def test_a_writer_of_nothing_makes_an_empty_file(driver: StorageDriver) -> None:
    await write(driver, "/new/folder/data", append=False)
    assert await driver.get("/new/folder/data") == b""


async def test_a_new_writer_cuts_the_file(driver: StorageDriver) -> None:
    await driver.put("/f", b"a long content")
    await write(driver, "/f", b"short", append=False)
    assert await driver.get("/f") == b"short"


async def test_append_needs_the_folder(driver: StorageDriver) -> None:
    with pytest.raises(PathNotFound):
        await driver.writer("/no/folder/data", append=True)
    assert await driver.stat("/no") is None


async def test_cancel_removes_the_file(driver: StorageDriver) -> None:
    await driver.put("/up/startedat", b"now")
    async with await driver.writer("/up/data", append=True) as writer:
        await writer.write(b"x")
        await writer.cancel()
    assert await paths_of(driver, "/up") == ["/up/startedat"]


@pytest.mark.parametrize("append", [True, False])
async def test_a_second_writer_is_refused_and_harms_nothing(
    driver: StorageDriver, append: bool
) -> None:
    await driver.put("/up/data", b"12")
    async with await driver.writer("/up/data", append=True) as writer:
        await writer.write(b"34")
        with pytest.raises(Busy):
            await driver.writer("/up/data", append=append)
        await writer.write(b"56")
        await writer.commit()
        await write(driver, "/up/data", b"78")
    assert await driver.get("/up/data") == b"12345678"


async def test_a_failed_body_frees_the_file_and_keeps_its_bytes(driver: StorageDriver) -> None:
    await driver.put("/up/data", b"")
    with pytest.raises(ZeroDivisionError):
        async with await driver.writer("/up/data", append=True) as writer:
            await writer.write(b"kept")
            raise ZeroDivisionError
    await write(driver, "/up/data", b" on")
    assert await driver.get("/up/data") == b"kept on"


async def test_a_closed_writer_writes_no_more(driver: StorageDriver) -> None:
    async with await driver.writer("/data", append=False) as writer:
        await writer.write(b"x")
        await writer.commit()
        for call in (writer.write(b"y"), writer.commit(), writer.cancel()):
            with pytest.raises(Unavailable):
                await call
    assert await driver.get("/data") == b"x"


async def test_a_removed_file_does_not_come_back_with_its_writer(driver: StorageDriver) -> None:
    for end in ("commit", "cancel"):
        await driver.put("/up/data", b"")
        async with await driver.writer("/up/data", append=True) as writer:
            await driver.delete("/up")
            await writer.write(b"lost")
            await driver.put("/up/data", b"another file")
            await getattr(writer, end)()
        assert await driver.get("/up/data") == b"another file"


async def test_a_blocking_writer_takes_bytes_in_a_thread(driver: StorageDriver) -> None:
    async with await driver.writer("/data", append=False) as writer:
        if not isinstance(writer, BlockingWriter):
            pytest.skip("this driver's writers do not block")
        await asyncio.to_thread(writer.write_now, memoryview(b"in a thread"))
        assert writer.size == 11
        await writer.write(b", and not")
        await writer.commit()
    assert await driver.get("/data") == b"in a thread, and not"


async def test_readers_see_the_old_or_the_new_file(driver: StorageDriver) -> None:
    contents = {bytes([letter]) * 100_000 for letter in b"abc"}
    await driver.put("/f", min(contents))
    done = False

    async def put() -> None:
        for _ in range(4):
            for content in contents:
                await driver.put("/f", content)

    async def read() -> int:
        count = 0
        while not done:
            assert await driver.get("/f") in contents
            assert await content_of(driver, "/f") in contents
            await asyncio.sleep(0)
            count += 1
        return count

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await asyncio.gather(put(), put())
    done = True
    assert min(await asyncio.gather(*readers)) > 0
    assert await paths_of(driver, "/") == ["/f"]


async def test_many_puts_at_once_all_arrive(driver: StorageDriver) -> None:
    await asyncio.gather(
        *(driver.put(f"/many/{n % 5}/{n}", str(n).encode()) for n in range(60)),
        *(driver.put("/many/one", str(n).encode()) for n in range(10)),
    )
    assert len(await paths_of(driver, "/many")) == 61
    assert await driver.get("/many/3/33") == b"33"


async def test_put_holds_out_while_its_folder_is_removed(driver: StorageDriver) -> None:
    async def put(number: int) -> None:
        for _ in range(8):
            await driver.put(f"/folder/deeper/{number}", b"x")

    async def delete() -> None:
        while not task.done():
            with suppress(PathNotFound):
                await driver.delete("/folder")
            await asyncio.sleep(0.01)

    task = asyncio.gather(*(put(number) for number in range(4)))
    await delete()
    await task
    await driver.put("/folder/last", b"x")
    assert await driver.get("/folder/last") == b"x"


async def test_redirects_are_addresses_or_none(driver: StorageDriver) -> None:
    await driver.put("/f", b"x")
    url = await driver.redirect_url("/f", "GET")
    assert url is None or url.startswith("http")


BAD_PATHS = (
    "",
    "relative",
    "/",
    "//",
    "/a//b",
    "/a/",
    "/a/../b",
    "/..",
    "/.",
    "/a/.",
    "/a b",
    "/a\0",
    "/ä",
    "/a\n",
    "/a%2fb",
)


@pytest.mark.parametrize("path", BAD_PATHS, ids=repr)
async def test_bad_paths_are_refused_by_every_verb(checked: StorageDriver, path: str) -> None:
    verbs: list[Callable[[], Awaitable[object]]] = [
        lambda: checked.get(path),
        lambda: content_of(checked, path),
        lambda: checked.put(path, b""),
        lambda: checked.writer(path, append=False),
        lambda: checked.move(path, "/ok"),
        lambda: checked.move("/ok", path),
        lambda: checked.delete(path),
        lambda: checked.redirect_url(path, "GET"),
    ]
    if path != "/":
        verbs += [
            lambda: checked.stat(path),
            lambda: checked.list(path),
            lambda: paths_of(checked, path),
        ]
    await checked.put("/ok", b"")
    for verb in verbs:
        with pytest.raises(InvalidPath):
            await verb()
    assert await paths_of(checked, "/") == ["/ok"]


@pytest.mark.parametrize("path", ["/a", "/.hidden", "/..a", "/a.", "/a..b/...", "/A-Z_0.9"])
async def test_names_with_dots_are_good(checked: StorageDriver, path: str) -> None:
    await checked.put(path, b"x")
    assert await checked.get(path) == b"x"
    assert await checked.list("/") == [path.split("/")[1]]


async def test_a_name_that_is_too_long_is_invalid(driver: StorageDriver) -> None:
    try:
        await driver.put("/" + "a" * 5000, b"")
    except InvalidPath:
        assert await driver.list("/") == []
