from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.driver import InvalidOffset
from storage.folders import Folders
from storage.localpublish import publish
from storage.plan import Entry, Move, Put, PutFolder


def test_publishers_that_make_the_same_folders_do_not_trip_each_other(tmp_path: Path) -> None:
    root, folders = str(tmp_path), Folders(str(tmp_path))
    threads, rounds = 4, 60
    together = threading.Barrier(threads)
    for number in range(rounds):
        publish(root, folders, [[PutFolder(f"/{number}", (("current", b""),))]])

    def work(thread: int) -> None:
        for number in range(rounds):
            together.wait(10)
            files = (("a/b/c/d/e/link", b"%d" % thread), ("current", b"%d" % thread))
            publish(root, folders, [[PutFolder(f"/{number}", files)]])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    for number in range(rounds):
        assert sorted(os.listdir(tmp_path / str(number))) == ["a", "current"]


@pytest.mark.parametrize("there", [True, False])
def test_what_was_not_published_leaves_nothing_behind(tmp_path: Path, *, there: bool) -> None:
    root, folders = str(tmp_path), Folders(str(tmp_path))
    publish(root, folders, [[Put("/up/data", b"123")]])
    if there:
        publish(root, folders, [[PutFolder("/tags/t", (("current", b"old"),))]])
    groups: list[list[Entry]] = [
        [Put("/link", b"")],
        [PutFolder("/tags/t", (("index/d/link", b""), ("current", b"new")))],
        [Move("/up/data", "/blob", 4)],
    ]
    before = descriptors()
    with pytest.raises(InvalidOffset):
        publish(root, folders, groups)
    assert descriptors() == before
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"up/data"} | ({"tags/t/current"} if there else set())
    assert not list(tmp_path.rglob(".*"))


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))
