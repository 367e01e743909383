"""The collector as a command, and on real files: folders without files, symbolic links."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.gc import add_arguments, main_gc
from registry.gc_report import human_size
from storage import paths
from storage.driver import StorageDriver
from storage.filesystem import FilesystemDriver
from tests.fakes.backend import OLD, YOUNG, Backend


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[StorageDriver]:
    made = FilesystemDriver(str(tmp_path))
    yield made
    await made.close()


@pytest.fixture
def backend(driver: StorageDriver, tmp_path: Path) -> Backend:
    return Backend.in_folder(driver, str(tmp_path))


async def command(driver: StorageDriver, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `registry gc`."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = io.StringIO()
    code = await main_gc(driver, parser.parse_args(arguments), out)
    return code, out.getvalue()


def files(root: Path) -> set[str]:
    return {f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_file()}


def age_folders(root: Path, age: float = OLD) -> None:
    then = time.time() - age
    for path in root.rglob("*"):
        if path.is_dir():
            os.utime(path, (then, then))


async def test_a_dry_run_is_the_default_and_names_everything(
    driver: StorageDriver, backend: Backend, tmp_path: Path
) -> None:
    await backend.image("team/app", "v1")
    untagged = await backend.image("team/app", seed="untagged")
    layer = await backend.layer("team/other", b"x" * 2000)
    age_folders(tmp_path)
    before = files(tmp_path)
    code, output = await command(driver, "--delete-untagged")
    assert code == 0
    assert files(tmp_path) == before
    lines = output.splitlines()
    assert f"Would delete manifest link team/app@{untagged} (71 B)" in lines
    assert f"Would delete layer link team/other@{layer} (71 B)" in lines
    assert "Would delete repository team/other (0 B)" in lines
    assert f"Would delete blob {layer} (2.0 KiB)" in lines
    assert lines[-5:-1] == [
        "Would delete 1 manifest links",
        "Would delete 3 layer links",
        "Would delete 1 repositories",
        "Would delete 4 blobs",
    ]
    assert lines[-1].startswith("Would free up 2.")


async def test_a_confirmed_run_deletes_and_sums_up(
    driver: StorageDriver, backend: Backend, tmp_path: Path
) -> None:
    await backend.image("team/app", "v1")
    kept = files(tmp_path)
    layer = await backend.layer("team/app", b"unused")
    code, output = await command(driver, "--confirm", "--grace-period", "90m")
    assert code == 0
    assert output.splitlines() == ["Deleted 1 layer links", "Deleted 1 blobs", "Freed up 77 B"]
    assert files(tmp_path) == kept
    assert not (tmp_path / paths.blob_folder(layer)[1:]).exists()
    assert not (tmp_path / paths.layer_folder("team/app", layer)[1:]).exists()
    assert await command(driver, "--confirm") == (0, "Deleted 0 blobs\nFreed up 0 B\n")


async def test_json_output_is_one_document(driver: StorageDriver, backend: Backend) -> None:
    layer = await backend.layer("team/app", b"unused")
    await backend.layer("team/app", b"new", YOUNG)
    code, output = await command(driver, "-o", "json")
    document = json.loads(output)
    assert code == 0
    assert document["items"] == [
        {"kind": "layer link", "name": f"team/app@{layer}", "size": 71},
        {"kind": "blob", "name": layer, "size": 6},
    ]
    assert document["dryRun"] is True
    assert document["deleted"]["blob"] == 1
    assert document["freedBytes"] == 77
    assert document["errors"] == {"count": 0, "first": []}
    _, output = await command(driver, "-o", "json", "--grace-period", "24h")
    assert json.loads(output)["items"] == []


async def test_a_broken_manifest_makes_the_exit_code_1(
    driver: StorageDriver, backend: Backend
) -> None:
    broken = await backend.image("team/app", "v1")
    await driver.delete(paths.blob(broken))
    code, output = await command(driver, "--confirm")
    assert code == 1
    assert f"Broken manifest: team/app@{broken}: its blob is missing" in output
    assert "Blobs were left alone in this run" in output


@pytest.mark.parametrize("grace", ["5m", "soon", "-1h"])
async def test_a_bad_grace_period_is_refused(
    driver: StorageDriver, capsys: pytest.CaptureFixture[str], grace: str
) -> None:
    assert await command(driver, f"--grace-period={grace}") == (1, "")
    assert "--grace-period" in capsys.readouterr().err


async def test_force_allows_no_grace_at_all(
    driver: StorageDriver, backend: Backend, tmp_path: Path
) -> None:
    await backend.layer("team/app", b"unused", 1)
    code, _ = await command(driver, "--confirm", "--force", "--grace-period", "0s")
    assert code == 0
    assert files(tmp_path) == set()


async def test_an_emptied_repository_leaves_the_catalog_with_the_folders_above_it(
    driver: StorageDriver, backend: Backend, tmp_path: Path
) -> None:
    await backend.image("team/kept", "v1")
    await backend.image("deep/er/app", seed="untagged")
    await backend.layer("team/kept/nested", b"unused")
    age_folders(tmp_path)
    code, output = await command(driver, "--confirm", "--delete-untagged")
    repositories = tmp_path / paths.REPOSITORIES[1:]
    assert code == 0
    assert "Deleted 2 repositories" in output
    assert [path.name for path in repositories.iterdir()] == ["team"]
    assert not (repositories / "team/kept/nested").exists()
    assert (repositories / "team/kept/_manifests").is_dir()


async def test_repositories_of_folders_only_go_when_old(
    driver: StorageDriver, tmp_path: Path
) -> None:
    repositories = tmp_path / paths.REPOSITORIES[1:]
    for folder in ("a/b/_manifests/tags", "a/b/_layers/sha256", "c/_uploads", "d/_uploads/some-id"):
        (repositories / folder).mkdir(parents=True)
    (repositories / "not a name").mkdir()
    await command(driver, "--confirm")
    assert (repositories / "a/b").is_dir()
    age_folders(tmp_path)
    (repositories / "e/_manifests").mkdir(parents=True)
    code, output = await command(driver, "--confirm")
    assert code == 0
    assert "Deleted 2 repositories" in output
    assert sorted(path.name for path in repositories.iterdir()) == ["d", "e", "not a name"]


async def test_a_tag_folder_without_files_goes_when_old(
    driver: StorageDriver, backend: Backend, tmp_path: Path
) -> None:
    await backend.image("team/app", "v1")
    tags = tmp_path / paths.tags("team/app")[1:]
    for name in ("old", "new"):
        (tags / name / "current").mkdir(parents=True)
    then = time.time() - OLD
    os.utime(tags / "old", (then, then))
    _, output = await command(driver, "--confirm")
    assert sorted(path.name for path in tags.iterdir()) == ["new", "v1"]
    assert "Deleted 1 tags" in output


async def test_files_behind_a_symbolic_link_stop_the_run(
    driver: StorageDriver, backend: Backend, tmp_path: Path
) -> None:
    await backend.image("team/app", "v1")
    unused = await backend.blob(b"unused")
    repositories = tmp_path / paths.REPOSITORIES[1:]
    (tmp_path / "elsewhere").mkdir()
    (repositories / "team").rename(tmp_path / "elsewhere" / "team")
    (repositories / "team").symlink_to(tmp_path / "elsewhere" / "team")
    age_folders(tmp_path)
    code, output = await command(driver, "--confirm")
    assert code == 1
    assert "symbolic link" in output
    assert (tmp_path / paths.blob(unused)[1:]).exists()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**60, "1024.0 PiB")],
)
def test_sizes_are_said_for_people(size: int, text: str) -> None:
    assert human_size(size) == text


async def test_the_uid_of_a_namespace_keeps_its_folder(
    driver: StorageDriver, backend: Backend, tmp_path: Path
) -> None:
    uid = await backend.file(f"{paths.REPOSITORIES}/team/_uid", b"1234")
    await backend.layer("team/app", b"unused")
    age_folders(tmp_path)
    await command(driver, "--confirm")
    assert files(tmp_path) == {uid}
    assert not (tmp_path / paths.repository("team/app")[1:]).exists()


async def test_two_runs_at_once_do_each_other_no_harm(
    driver: StorageDriver, backend: Backend, tmp_path: Path
) -> None:
    await backend.image("team/app", "v1")
    kept = files(tmp_path)
    for number in range(20):
        await backend.layer("team/app", f"unused {number}".encode())
    second = FilesystemDriver(str(tmp_path))
    codes = await asyncio.gather(*(command(each, "--confirm") for each in (driver, second)))
    await second.close()
    assert [code for code, _ in codes] == [0, 0]
    assert files(tmp_path) == kept
