from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from storage.driver import Unavailable
from storage.folders import REMEMBERED_FOLDERS, WALK_BATCH, FolderNames, Folders, Walker
from storage.localfiles import is_own_name, temporary_name


def later() -> int:
    """A clock by which all files were changed long ago."""
    return time.time_ns() + 60_000_000_000


def names(of: FolderNames, folder: Path, *, keep: bool = True) -> list[str]:
    return of.names(str(folder), "/folder", keep=keep)


def fill(folder: Path, *files: str) -> None:
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file).touch()


def test_kept_names_are_not_read_again_while_the_folder_stays(tmp_path: Path) -> None:
    kept = FolderNames(clock=later)
    fill(tmp_path, "b", "a")
    first = names(kept, tmp_path)
    assert first == ["a", "b"]
    assert names(kept, tmp_path) is first
    assert names(kept, tmp_path, keep=False) is not first


@pytest.mark.parametrize("change", ["add", "remove", "rename"])
def test_kept_names_follow_every_change(tmp_path: Path, change: str) -> None:
    kept = FolderNames(clock=later)
    fill(tmp_path, "a", "b")
    names(kept, tmp_path)
    match change:
        case "add":
            fill(tmp_path, "c")
        case "remove":
            (tmp_path / "a").unlink()
        case _:
            (tmp_path / "a").rename(tmp_path / "z")
    assert names(kept, tmp_path) == sorted(os.listdir(tmp_path))


def test_a_folder_put_back_with_its_old_time_is_read_again(tmp_path: Path) -> None:
    kept = FolderNames(clock=later)
    folder = tmp_path / "f"
    fill(folder, "a")
    names(kept, folder)
    before = folder.stat()
    fill(folder, "b")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names(kept, folder) == ["a", "b"]


def test_names_of_a_folder_that_has_just_changed_are_not_kept(tmp_path: Path) -> None:
    kept = FolderNames()
    fill(tmp_path, "a")
    assert names(kept, tmp_path) is not names(kept, tmp_path)


def test_names_are_kept_up_to_a_total(tmp_path: Path) -> None:
    kept = FolderNames(limit=8, clock=later)
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        fill(folder, "1", "2", "3")
    a, b = names(kept, folders[0]), names(kept, folders[1])
    assert names(kept, folders[0]) is a
    names(kept, folders[2])
    assert names(kept, folders[0]) is a
    assert names(kept, folders[1]) is not b


def test_a_folder_with_too_many_names_is_not_kept(tmp_path: Path) -> None:
    kept = FolderNames(limit=2, clock=later)
    fill(tmp_path, "1", "2", "3")
    assert names(kept, tmp_path) is not names(kept, tmp_path)


def test_a_folder_that_was_removed_has_no_names(tmp_path: Path) -> None:
    kept = FolderNames(clock=later)
    folder = tmp_path / "f"
    fill(folder)
    assert names(kept, folder) == []
    folder.rmdir()
    assert names(kept, folder) == []


@pytest.mark.parametrize(
    "name",
    [
        ".new-0c0e9b8e4c4b4e0f9a8b7c6d5e4f3a2b",
        ".del-x",
        ".nfs000000000001",
        "link.0c0e9b8e4c4b4e0f9a8b7c6d5e4f3a2b.tmp",
        "data.0c0e9b8e-4c4b-4e0f-9a8b-7c6d5e4f3a2b.tmp",
        os.path.basename(temporary_name("/a/link")),
    ],
)
def test_the_storages_own_names_are_known(tmp_path: Path, name: str) -> None:
    assert is_own_name(name)
    fill(tmp_path, name, "a")
    assert names(FolderNames(), tmp_path) == ["a"]


@pytest.mark.parametrize("name", [".hidden", "v1.tmp", "new-1", "a.del-b", "data", "x.123.tmp"])
def test_other_names_are_content(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)
    assert names(FolderNames(), tmp_path) == [name]


def test_folders_are_synced_up_to_the_first_that_is_known_to_be_durable(tmp_path: Path) -> None:
    root = str(tmp_path)
    folders = Folders(root)
    folders.make(f"{root}/a/b/c")
    dirty: dict[str, None] = {}
    folders.entered(f"{root}/a/b/c", dirty)
    assert list(dirty) == [f"{root}/a/b/c", f"{root}/a/b", f"{root}/a", root]
    folders.sync(dirty)

    folders.make(f"{root}/a/b/d")
    dirty = {}
    folders.entered(f"{root}/a/b/d", dirty)
    assert list(dirty) == [f"{root}/a/b/d", f"{root}/a/b"]
    dirty = {}
    folders.entered(f"{root}/a/b/c", dirty)
    assert list(dirty) == [f"{root}/a/b/c"]


def test_a_folder_made_by_another_process_is_synced_once(tmp_path: Path) -> None:
    root = str(tmp_path)
    folders = Folders(root)
    (tmp_path / "theirs").mkdir()
    for expected in ([f"{root}/theirs", root], [f"{root}/theirs"]):
        dirty: dict[str, None] = {}
        folders.entered(f"{root}/theirs", dirty)
        assert list(dirty) == expected
        folders.sync(dirty)


def test_a_folder_made_again_is_synced_again(tmp_path: Path) -> None:
    root = str(tmp_path)
    folders = Folders(root)
    for _ in range(2):
        folders.make(f"{root}/a")
        dirty: dict[str, None] = {}
        folders.entered(f"{root}/a", dirty)
        assert list(dirty) == [f"{root}/a", root]
        folders.sync(dirty)
        (tmp_path / "a").rmdir()
    folders.sync([f"{root}/a"])


def test_what_is_known_of_folders_is_bounded(tmp_path: Path) -> None:
    root = str(tmp_path)
    folders = Folders(root)
    count = REMEMBERED_FOLDERS + 10
    for number in range(count):
        (tmp_path / str(number)).mkdir()
    folders.sync([root, *(f"{root}/{number}" for number in range(count))])
    for number, known in ((0, False), (9, False), (10, True), (count - 1, True)):
        dirty: dict[str, None] = {}
        folders.entered(f"{root}/{number}", dirty)
        assert (len(dirty) == 1) is known


def test_a_missing_root_is_not_made(tmp_path: Path) -> None:
    root = tmp_path / "unmounted"
    with pytest.raises(Unavailable) as caught:
        Folders(str(root)).make(f"{root}/a/b")
    assert str(tmp_path) not in str(caught.value)
    assert not root.exists()


def test_walk_gives_files_of_every_kind_in_batches_and_no_links(tmp_path: Path) -> None:
    fill(tmp_path / "w")
    fill(tmp_path / "w" / ".new-1", "x")
    fill(tmp_path / "w" / "many", *(str(number) for number in range(WALK_BATCH + 5)))
    fill(tmp_path / "w" / "empty")
    (tmp_path / "w" / "link").symlink_to(tmp_path)
    (tmp_path / "w" / "many" / f"a.{'0' * 32}.tmp").write_bytes(b"123")
    walker = Walker(str(tmp_path / "w"), "/w")
    found = {}
    while batch := walker.batch():
        found.update({info.path: info.size for info in batch})
    assert len(found) == WALK_BATCH + 7
    assert found["/w/.new-1/x"] == 0
    assert found[f"/w/many/a.{'0' * 32}.tmp"] == 3
    assert walker.batch() == []
