from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from storage.factory import DriverUnavailable, create_driver


def test_a_filesystem_driver_makes_its_root_folder(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"

    async def use() -> bytes:
        driver = create_driver("filesystem", {"rootdirectory": str(root)})
        await driver.put("/a", b"x")
        await driver.close()
        return (root / "a").read_bytes()

    assert asyncio.run(use()) == b"x"


def test_a_memory_driver_needs_nothing() -> None:
    assert create_driver("inmemory", {}).name == "inmemory"


@pytest.mark.parametrize("kind", ["s3", "gcs", "azure", "swift", "floppy", ""])
def test_a_driver_that_is_not_there_is_named(kind: str) -> None:
    with pytest.raises(DriverUnavailable, match=repr(kind)):
        create_driver(kind, {})


@pytest.mark.parametrize("settings", [{}, {"rootdirectory": ""}, {"rootdirectory": 7}])
def test_a_filesystem_driver_without_a_root_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(DriverUnavailable, match="rootdirectory"):
        create_driver("filesystem", settings)


def test_a_root_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DriverUnavailable, match="Not a directory"):
        create_driver("filesystem", {"rootdirectory": str(tmp_path / "file" / "root")})


def test_only_the_driver_asked_for_is_imported() -> None:
    code = (
        "import sys; from storage.factory import create_driver; create_driver('inmemory', {});"
        "assert 'aiofiles' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
