"""Which uploads are purged, and that nothing in the way stops a round."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.purge import PurgeReport, UploadPurger
from storage import paths
from storage.filesystem import FilesystemDriver
from tests.fakes.backend import HOUR, NOW, AgedDriver, Backend

WEEK = 168 * HOUR
OLD = WEEK + HOUR
YOUNG = WEEK - HOUR


def stamp(age: float) -> str:
    return datetime.fromtimestamp(NOW - age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def driver() -> AgedDriver:
    return AgedDriver()


@pytest.fixture
def backend(driver: AgedDriver) -> Backend:
    return Backend.on(driver)


def purger(driver: AgedDriver, *, dry_run: bool = False) -> UploadPurger:
    return UploadPurger(driver, clock=lambda: NOW, first_delay=0, dry_run=dry_run)


async def test_an_old_upload_goes_whole(driver: AgedDriver, backend: Backend) -> None:
    folder = await backend.upload("team/app", "one", started=stamp(OLD), age=OLD)
    await backend.file(f"{folder}/hashstates/sha256/5", b"state", OLD)
    assert await purger(driver).purge_once() == PurgeReport(seen=1, purged=1)
    assert await driver.files() == set()


@pytest.mark.parametrize(("started", "written"), [(OLD, YOUNG), (YOUNG, OLD), (YOUNG, YOUNG)])
async def test_an_upload_started_or_written_to_within_the_age_is_spared(
    driver: AgedDriver, backend: Backend, started: float, written: float
) -> None:
    folder = await backend.upload("team/app", "one", started=stamp(started), age=OLD)
    driver.set_age(f"{folder}/data", written)
    before = await driver.files()
    assert await purger(driver).purge_once() == PurgeReport(seen=1)
    assert await driver.files() == before


@pytest.mark.parametrize(
    "started", [None, "", "yesterday", "2999-01-01T00:00:00Z", "2023-01", "x" * 100, "\u00fc"]
)
@pytest.mark.parametrize("age", [OLD, YOUNG])
async def test_without_a_start_that_can_be_read_the_files_times_decide(
    driver: AgedDriver, backend: Backend, started: str | None, age: float
) -> None:
    await backend.upload("team/app", "one", started=started, age=age)
    report = await purger(driver).purge_once()
    assert report == PurgeReport(seen=1, purged=1 if age == OLD else 0)


async def test_a_dry_run_only_counts(driver: AgedDriver, backend: Backend) -> None:
    await backend.upload("team/app", "one", started=stamp(OLD), age=OLD)
    before = await driver.files()
    assert await purger(driver, dry_run=True).purge_once() == PurgeReport(seen=1, purged=1)
    assert await driver.files() == before


async def test_uploads_of_nested_names_are_found_and_nothing_else_goes(
    driver: AgedDriver, backend: Backend
) -> None:
    await backend.image("team/app", "v1", age=OLD)
    stray = await backend.file(f"{paths.uploads('team/app')}/stray", b"a file", OLD)
    uid = await backend.file(f"{paths.repository('team')}/_uid", b"uid", OLD)
    before = await driver.files()
    for name in ("team", "team/app", "team/app/very/deep"):
        await backend.upload(name, "one", started=stamp(OLD), age=OLD)
    assert await purger(driver).purge_once() == PurgeReport(seen=3, purged=3)
    assert await driver.files() == before
    assert {stray, uid} <= before


async def test_an_upload_that_a_request_has_open_is_left_to_it(
    driver: AgedDriver, backend: Backend
) -> None:
    folder = await backend.upload("team/app", "one", started=stamp(OLD), age=OLD)
    async with await driver.writer(f"{folder}/data", append=True) as writer:
        assert await purger(driver).purge_once() == PurgeReport(seen=1, in_use=1)
        await writer.write(b"more")
        await writer.commit()
    assert f"{folder}/data" in await driver.files()


async def test_one_bad_entry_does_not_stop_the_round(driver: AgedDriver, backend: Backend) -> None:
    bad = await backend.upload("team/app", "bad", started=stamp(OLD), age=OLD)
    for name in ("team/app", "team/other", "a", "z"):
        await backend.upload(name, "good", started=stamp(OLD), age=OLD)
    driver.refused |= {
        ("walk", bad),
        ("list", paths.repository("a")),
        ("list", paths.uploads("z")),
    }
    report = await purger(driver).purge_once()
    assert (report.seen, report.purged, len(report.errors)) == (3, 2, 3)
    assert paths.upload_data("team/other", "good") not in await driver.files()


async def test_rounds_begin_after_the_first_delay_and_come_back_after_the_interval(
    driver: AgedDriver, backend: Backend
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError
        await backend.upload("team/app", f"upload-{len(slept)}", started=stamp(OLD), age=OLD)

    running = UploadPurger(
        driver, clock=lambda: NOW, first_delay=42, interval=HOUR, age=WEEK, sleep=sleep
    )
    with pytest.raises(asyncio.CancelledError):
        await running.run()
    assert slept == [42, HOUR, HOUR]
    assert await driver.files() == set()


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[FilesystemDriver]:
    made = FilesystemDriver(str(tmp_path))
    yield made
    await made.close()


async def test_on_files_a_lock_of_another_process_is_respected_and_folders_go(
    local: FilesystemDriver, tmp_path: Path
) -> None:
    backend = Backend.in_folder(local, str(tmp_path))
    folders = [
        await backend.upload("team/app", name, started=None, age=OLD) for name in ("busy", "idle")
    ]
    empty = tmp_path / paths.upload_folder("team/app", "empty")[1:]
    empty.mkdir()
    purging = UploadPurger(local, clock=time.time, first_delay=0)
    other = FilesystemDriver(str(tmp_path))
    async with await other.writer(f"{folders[0]}/data", append=True):
        report = await purging.purge_once()
    await other.close()
    assert report == PurgeReport(seen=3, purged=1, in_use=1)
    assert await local.list(paths.uploads("team/app")) == ["busy", "empty"]
