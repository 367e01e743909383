"""The storage drivers that the contract suite runs over, each bare and behind its checks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from storage.driver import StorageDriver
from storage.filesystem import FilesystemDriver
from storage.instrumented import instrument
from storage.memory import MemoryDriver
from tests.unit.storage.recorder import Recorded

Maker = Callable[[Path], StorageDriver]

DRIVERS: dict[str, Maker] = {
    "filesystem": lambda folder: FilesystemDriver(str(folder)),
    "memory": lambda folder: MemoryDriver(),
}
CHECKED: dict[str, Maker] = {
    f"{name}-instrumented": lambda folder, maker=maker: instrument(  # type: ignore[misc]
        maker(folder), Recorded()
    )
    for name, maker in DRIVERS.items()
}
MAKERS = DRIVERS | CHECKED


@pytest.fixture(params=sorted(MAKERS))
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorageDriver]:
    made = MAKERS[request.param](tmp_path)
    yield made
    await made.close()


@pytest.fixture(params=sorted(CHECKED))
async def checked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorageDriver]:
    """Only drivers behind `instrument`: those that are given any path."""
    made = MAKERS[request.param](tmp_path)
    yield made
    await made.close()
