"""From the configuration's words to a driver. Only the driver that is asked for is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping

from storage.driver import StorageDriver


class DriverUnavailable(Exception):
    """The storage that the configuration asks for cannot be had. The message says what and why."""


def create_driver(kind: str, settings: Mapping[str, object]) -> StorageDriver:
    """The driver `kind`, without checks and metrics (`instrumented.instrument` adds them).

    Of `settings`, `filesystem` needs `rootdirectory`, which is made where it is absent. Raises
    DriverUnavailable. Makes blocking calls: for the start of a process.
    """
    match kind:
        case "filesystem":
            from storage.filesystem import FilesystemDriver

            return FilesystemDriver(_root_folder(settings.get("rootdirectory")))
        case "inmemory":
            from storage.memory import MemoryDriver

            return MemoryDriver()
        case "s3" | "gcs" | "azure" | "swift":
            raise DriverUnavailable(
                f"the storage driver {kind!r} is not built yet; use 'filesystem'"
            )
        case _:
            raise DriverUnavailable(f"there is no storage driver {kind!r}")


def _root_folder(setting: object) -> str:
    if not isinstance(setting, str) or not setting:
        raise DriverUnavailable("the storage driver 'filesystem' needs a 'rootdirectory'")
    try:
        os.makedirs(setting, exist_ok=True)
    except OSError as error:
        raise DriverUnavailable(
            f"the storage folder {setting} cannot be made: {error.strerror}"
        ) from error
    return setting
