"""A registry over each driver: memory runs plans step by step, the filesystem in one thread job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.metadata import StorageMetadata
from registry.stored import StoredRegistry
from storage.driver import StorageDriver
from storage.filesystem import FilesystemDriver
from storage.memory import MemoryDriver


@pytest.fixture(params=["memory", "filesystem"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorageDriver]:
    made: StorageDriver = (
        MemoryDriver() if request.param == "memory" else FilesystemDriver(str(tmp_path))
    )
    yield made
    await made.close()


@pytest.fixture
def registry(driver: StorageDriver) -> StoredRegistry:
    return StoredRegistry(driver, StorageMetadata(driver))
