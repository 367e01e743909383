"""What only the filesystem driver has: threads, other processes, the kernel's locks."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from storage.driver import (
    BlockingWriter,
    Busy,
    InvalidPath,
    OutOfSpace,
    ReadOnly,
    StorageDriver,
    StorageError,
    Unavailable,
)
from storage.filesystem import FilesystemDriver
from storage.plan import (
    Append,
    Delete,
    Get,
    LocalPlans,
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

MIB = 1024 * 1024
HOLDER = """
import asyncio, sys
from storage.filesystem import FilesystemDriver

async def hold():
    driver = FilesystemDriver(sys.argv[1])
    async with await driver.writer("/up/data", append=True) as writer:
        await writer.write(b"theirs")
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await writer.commit()
    await driver.close()

asyncio.run(hold())
"""


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[FilesystemDriver]:
    made = FilesystemDriver(str(tmp_path))
    yield made
    await made.close()


async def ask(driver: StorageDriver, step: Step, *, writes: bool = True) -> object:
    def plan() -> Plan[object]:
        result: object = yield step
        return result

    return await perform(driver, plan(), writes=writes)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def soon(happened: Callable[[], bool]) -> bool:
    for _ in range(1000):
        if happened():
            return True
        await asyncio.sleep(0.005)
    return False


@contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has written to an upload and has it open."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_another_process_keeps_writers_appends_and_moves_out(
    driver: FilesystemDriver, tmp_path: Path
) -> None:
    await driver.put("/up/data", b"ours ")
    with holder(tmp_path) as process:
        with pytest.raises(Busy):
            await driver.writer("/up/data", append=True)
        with pytest.raises(Busy):
            await ask(driver, Append("/up/data", 11, b"!"))
        with pytest.raises(Busy):
            await ask(driver, Publish([[Move("/up/data", "/blob", 11)]]))
        await asyncio.to_thread(process.communicate, "\n", 10)
    await ask(driver, Append("/up/data", 11, b"!"))
    await ask(driver, Publish([[Move("/up/data", "/blob", 12)]]))
    assert await driver.get("/blob") == b"ours theirs!"


async def test_a_killed_process_leaves_its_bytes_and_no_lock(
    driver: FilesystemDriver, tmp_path: Path
) -> None:
    await driver.put("/up/data", b"ours ")
    with holder(tmp_path) as process:
        process.kill()
        await asyncio.to_thread(process.wait, 10)
        async with await driver.writer("/up/data", append=True) as writer:
            assert writer.size == 11
            await writer.write(b"!")
            await writer.commit()
    assert await driver.get("/up/data") == b"ours theirs!"


async def test_kept_names_show_what_another_process_changed_a_moment_ago(
    driver: FilesystemDriver, tmp_path: Path
) -> None:
    await driver.put("/tags/a/link", b"")
    expected = ["a"]
    for number in range(20):
        assert await ask(driver, Names("/tags", keep=True)) == expected
        if number % 5 == 0:
            command = ["mkdir", str(tmp_path / "tags" / f"b{number:02}")]
            await asyncio.to_thread(subprocess.run, command, check=True)
        else:
            (tmp_path / "tags" / f"b{number:02}").mkdir()
        expected.append(f"b{number:02}")
    assert await ask(driver, Names("/tags", keep=True)) == expected


def test_a_driver_serves_one_event_loop_after_the_other(tmp_path: Path) -> None:
    driver = FilesystemDriver(str(tmp_path))

    async def use(number: int) -> list[str]:
        await driver.put(f"/{number}", b"x")
        assert await driver.get(f"/{number}") == b"x"
        assert await ask(driver, Get("/0"), writes=False) == b"x"
        return await driver.list("/")

    assert [asyncio.run(use(number)) for number in range(3)] == [
        ["0"],
        ["0", "1"],
        ["0", "1", "2"],
    ]
    asyncio.run(driver.close())


async def test_a_hung_file_stops_neither_the_loop_nor_other_files(
    driver: FilesystemDriver, tmp_path: Path
) -> None:
    await driver.put("/good", b"x")
    os.mkfifo(tmp_path / "hangs")
    hanging = asyncio.create_task(driver.get("/hangs"))
    await asyncio.sleep(0.02)
    assert await asyncio.gather(*(driver.get("/good") for _ in range(20))) == [b"x"] * 20
    assert not hanging.done()
    with open(os.open(tmp_path / "hangs", os.O_WRONLY), "wb"):  # noqa: ASYNC230
        pass
    assert await hanging == b""


async def test_the_plan_of_a_cancelled_caller_runs_to_its_end(driver: FilesystemDriver) -> None:
    done = threading.Event()

    def plan() -> Plan[None]:
        yield Note("/a", b"x")
        yield Note("/b", b"x")
        done.set()

    for writes in (True, False):
        done.clear()
        task = asyncio.create_task(driver.perform(plan(), writes=writes))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await soon(done.is_set)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("writes", [True, False])
async def test_a_file_opened_for_a_cancelled_caller_is_closed(
    driver: FilesystemDriver, turns: int, *, writes: bool
) -> None:
    await driver.put("/blob", bytes(1000))
    await ask(driver, Get("/blob"), writes=writes)
    gc.collect()
    gc.disable()
    try:
        before = open_descriptors()
        for _ in range(20):
            task = asyncio.create_task(ask(driver, Open("/blob"), writes=writes))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                opened = task.result()
                assert isinstance(opened, Opened)
                assert opened.file is not None
                opened.file.close()
            del task
        assert await soon(lambda: open_descriptors() == before)
    finally:
        gc.enable()


async def test_a_cancelled_writer_leaves_no_lock_and_no_descriptor(
    driver: FilesystemDriver,
) -> None:
    await driver.put("/up/data", b"")
    before = open_descriptors()

    async def write() -> None:
        async with await driver.writer("/up/data", append=True) as writer:
            while True:
                await writer.write(bytes(100_000))

    for delay in (0, 0.001, 0.003, 0.01):
        task = asyncio.create_task(write())
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # One that was cancelled while it was being opened is closed a moment later.
        for _ in range(200):
            with suppress(Busy):
                async with await driver.writer("/up/data", append=False):
                    break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("the file stays locked")
    assert await soon(lambda: open_descriptors() == before)


async def test_a_reader_that_is_cancelled_or_left_closes_its_file(
    driver: FilesystemDriver,
) -> None:
    await driver.put("/f", bytes(3 * MIB))
    before = open_descriptors()

    async def read() -> None:
        async for _ in driver.read("/f", 1):
            await asyncio.sleep(0.001)

    for delay in (0.001, 0.002, 0.004):
        task = asyncio.create_task(read())
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait((task,))
    async for _ in driver.read("/f"):
        break
    gc.collect()
    assert await soon(lambda: open_descriptors() == before)


async def test_big_writes_are_read_back(driver: FilesystemDriver) -> None:
    piece = bytes(range(256)) * 4096
    async with await driver.writer("/big", append=False) as writer:
        assert isinstance(writer, BlockingWriter)
        for _ in range(20):
            await asyncio.to_thread(writer.write_now, piece)
        await writer.commit()
    assert b"".join([part async for part in driver.read("/big")]) == piece * 20


async def test_temporary_names_are_walked_and_not_listed(
    driver: FilesystemDriver, tmp_path: Path
) -> None:
    await driver.put("/l/file", b"")
    hidden = [f"file.{'0' * 32}.tmp", f".new-{'0' * 32}/file", f".del-{'0' * 32}/deep/file"]
    for name in hidden:
        (tmp_path / "l" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "l" / name).touch()
    assert await driver.list("/l") == ["file"]
    assert await ask(driver, Names("/l")) == ["file"]
    found = {info.path async for info in driver.walk("/l")}
    assert found == {"/l/file", *(f"/l/{name}" for name in hidden)}


async def test_what_fails_leaves_no_temporary_names(
    driver: FilesystemDriver, tmp_path: Path
) -> None:
    await driver.put("/folder/file", b"x")
    await driver.put("/up/data", b"x")
    tags = PutFolder("/tags/t", (("index/d/link", b"d"), ("current/link", b"d")))
    for failing in (Put("/folder", b"y"), Put("/up/data/x", b""), Move("/up/data", "/b", 9)):
        with pytest.raises(StorageError):
            await ask(driver, Publish([[Put("/n/1", b"")], [tags, failing], [Put("/n/2", b"")]]))
    for folder, _, files in os.walk(tmp_path):
        assert not [name for name in files if name.endswith(".tmp")]
        assert ".new-" not in folder


async def test_a_new_folder_is_never_seen_in_part(tmp_path: Path) -> None:
    driver = FilesystemDriver(str(tmp_path))
    other = FilesystemDriver(str(tmp_path))
    files = (("index/d/link", b"d"), ("current/link", b"d"))
    done = False

    def look() -> int:
        looks = 0
        while not done:
            with suppress(FileNotFoundError):
                tag = os.open(tmp_path / "tags/t", os.O_RDONLY)
                if not is_whole(tag):
                    # Then it was on its way out, and has lost its name before.
                    with suppress(FileNotFoundError):
                        assert not os.path.samestat(os.fstat(tag), (tmp_path / "tags/t").stat())
                os.close(tag)
            looks += 1
        return looks

    def is_whole(tag: int) -> bool:
        try:
            os.stat("current/link", dir_fd=tag)
            os.stat("index/d/link", dir_fd=tag)
        except FileNotFoundError:
            return False
        return True

    looking = asyncio.create_task(asyncio.to_thread(look))
    for _ in range(30):
        await asyncio.gather(
            ask(driver, Publish([[PutFolder("/tags/t", files)]])),
            ask(other, Delete("/tags/t", at_once=True)),
            ask(other, Publish([[PutFolder("/tags/t", files)]])),
        )
    done = True
    assert await looking > 0
    await driver.close()
    await other.close()


async def test_messages_do_not_tell_where_the_storage_is(tmp_path: Path) -> None:
    root = tmp_path / "the-secret-place"
    root.mkdir()
    driver = FilesystemDriver(str(root))
    await driver.put("/a/b", b"")
    (root / "loop").symlink_to("loop")
    with pytest.raises(Unavailable) as unavailable:
        await driver.get("/loop")
    with pytest.raises(InvalidPath) as invalid:
        await driver.put("/a", b"")
    for error in (unavailable.value, invalid.value):
        assert "the-secret-place" not in str(error)
    assert "ELOOP" in str(unavailable.value)
    assert str(invalid.value).startswith("/a: ")
    await driver.close()


async def test_an_unmounted_root_is_not_made(tmp_path: Path) -> None:
    driver = FilesystemDriver(str(tmp_path / "gone"))
    with pytest.raises(Unavailable):
        await driver.put("/a/b", b"x")
    with pytest.raises(Unavailable):
        await ask(driver, Note("/a", b"x"))
    assert not (tmp_path / "gone").exists()
    assert await driver.stat("/") is None
    await driver.close()


async def test_it_runs_whole_plans(driver: FilesystemDriver) -> None:
    assert isinstance(driver, LocalPlans)
    threads = []

    def plan() -> Plan[None]:
        for _ in range(3):
            threads.append(threading.get_ident())
            yield Get("/a")

    for writes in (True, False):
        threads.clear()
        await driver.perform(plan(), writes=writes)
        assert len(set(threads)) == 1
        assert threads[0] != threading.get_ident()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True
    )
    if mounting.returncode:
        pytest.skip(f"mounting is not permitted here: {mounting.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_full_disk_is_out_of_space_and_keeps_no_rest(small_disk: Path) -> None:
    driver = FilesystemDriver(str(small_disk))
    await driver.put("/up/data", b"12")
    for step in (
        Publish([[Put("/a", b"")], [Put("/b", bytes(2 * MIB))]]),
        Append("/up/data", 2, bytes(2 * MIB)),
        Publish([[PutFolder("/t", (("a", b"1"), ("b", bytes(2 * MIB))))]]),
        Note("/note", bytes(2 * MIB)),
    ):
        with pytest.raises(OutOfSpace):
            await ask(driver, step)
        await ask(driver, Delete("/note"))
    async with await driver.writer("/up/data", append=True) as writer:
        assert isinstance(writer, BlockingWriter)
        await writer.write(b"34")
        with pytest.raises(OutOfSpace):
            await writer.write(bytes(2 * MIB))
        with pytest.raises(OutOfSpace):
            await asyncio.to_thread(writer.write_now, bytes(2 * MIB))
        assert writer.size == 4
        await writer.write(b"56")
        await writer.commit()
    assert [info.path async for info in driver.walk("/")] == ["/up/data"]
    assert await driver.get("/up/data") == b"123456"
    await driver.close()


async def test_a_read_only_mount_is_told(small_disk: Path) -> None:
    driver = FilesystemDriver(str(small_disk))
    await driver.put("/f", b"12")
    command = ["mount", "-o", "remount,ro", str(small_disk)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    for step in (
        Publish([[Put("/a", b"")]]),
        Publish([[Move("/f", "/g", 2)]]),
        Append("/f", 2, b"x"),
        Note("/n", b""),
        Delete("/f"),
    ):
        with pytest.raises(ReadOnly):
            await ask(driver, step)
    with pytest.raises(ReadOnly):
        await driver.writer("/f", append=True)
    assert await driver.get("/f") == b"12"
    await driver.close()
