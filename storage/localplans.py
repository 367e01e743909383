"""Plans on local files: every step as a few blocking system calls, a whole plan in one thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from storage.driver import FileInfo, InvalidOffset, PathNotFound
from storage.folders import FolderNames, Folders
from storage.localfiles import (
    DELETED,
    FILE_MODE,
    OpenFile,
    content_of,
    file_info,
    lock,
    read_bytes,
    remove_file,
    remove_known,
    remove_tree,
    sibling,
    storage_error,
    write_all,
)
from storage.localpublish import publish
from storage.plan import (
    Append,
    Delete,
    Get,
    Names,
    Note,
    Open,
    Opened,
    Plan,
    Publish,
    Stat,
    Step,
)

T = TypeVar("T")

_NOTE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class LocalSteps:
    """The steps of plans below the folder `root`. For worker threads, any number at once."""

    def __init__(self, root: str) -> None:
        self.folders = Folders(root)
        self.names = FolderNames()
        self._root = root
        self._steps: dict[type[Step], Callable[[Any], Any]] = {
            Get: self._get,
            Stat: self._stat,
            Names: self._names,
            Open: self._open,
            Append: self._append,
            Note: self._note,
            Publish: self._publish,
            Delete: self._delete,
        }

    def drive(self, plan: Plan[T]) -> T:
        """Runs a plan to its end. What a step raises is thrown into the plan."""
        steps = self._steps
        try:
            asked = next(plan)
            while True:
                try:
                    if isinstance(asked, list):
                        result: Any = [steps[type(step)](step) for step in asked]
                    else:
                        result = steps[type(asked)](asked)
                except Exception as error:
                    asked = plan.throw(error)
                else:
                    asked = plan.send(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # untyped in StopIteration

    def delete(self, path: str, *, at_once: bool) -> bool:
        """Removes a file or folder -> whether it was there. Raises ReadOnly, Unavailable.

        With `at_once`, a folder first gets a name that is never listed, and the removal is durable
        on return. Otherwise what was removed may come back with a power loss: that is for what has
        lost its meaning before, such as the folder of a finished upload.
        """
        host = self._root + path
        try:
            found = remove_file(host)
            if found and at_once:
                self._settle(host)
        except IsADirectoryError:
            return self._delete_folder(host, path, at_once=at_once)
        except OSError as error:
            raise storage_error(error, path) from error
        return found

    def _delete_folder(self, host: str, path: str, *, at_once: bool) -> bool:
        try:
            if at_once:
                doomed = sibling(host, DELETED)
                os.rename(host, doomed)
                self._settle(host)
                host = doomed
            remove_tree(host)
        except FileNotFoundError:
            return False  # Another process was faster.
        except OSError as error:
            raise storage_error(error, path) from error
        return True

    def _settle(self, host: str) -> None:
        self.folders.sync((os.path.dirname(host),))

    def _get(self, step: Get) -> bytes | None:
        return content_of(self._root + step.path, step.path, step.limit)

    def _stat(self, step: Stat) -> FileInfo | None:
        return file_info(self._root + step.path, step.path)

    def _names(self, step: Names) -> list[str]:
        return self.names.names(self._root + step.path, step.path, keep=step.keep)

    def _open(self, step: Open) -> Opened | None:
        path = step.path
        try:
            file = OpenFile(os.open(self._root + path, os.O_RDONLY))
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                file.close()
                return None
            info = FileInfo(path, status.st_size, status.st_mtime)
            if status.st_size > step.inline:
                return Opened(info, None, file)
            content = read_bytes(file.fileno(), status.st_size)
            file.close()
            return Opened(info, content)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, path) from error

    def _append(self, step: Append) -> None:
        """The file's bytes are durable, its folder is not synced: an upload may be lost as a whole
        with the power, and is begun anew then, but never torn."""
        path, offset = step.path, step.offset
        host = self._root + path
        flags = os.O_WRONLY | os.O_APPEND | (0 if offset else os.O_CREAT)
        try:
            descriptor = os.open(host, flags, FILE_MODE)
        except FileNotFoundError as error:
            if offset and os.path.isdir(os.path.dirname(host)):
                raise InvalidOffset(path, 0) from error
            raise PathNotFound(path) from error
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            size = lock(descriptor, host, path)
            if size != offset:
                raise InvalidOffset(path, size)
            _append_durably(descriptor, offset, step.content)
        except OSError as error:
            raise storage_error(error, path) from error
        finally:
            os.close(descriptor)

    def _note(self, step: Note) -> None:
        """Nothing is synced: after a power loss the file may be absent, empty or torn, which its
        readers take as absent."""
        host = self._root + step.path
        try:
            descriptor = self.folders.create(host, lambda: os.open(host, _NOTE, FILE_MODE))
            try:
                write_all(descriptor, step.content)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_error(error, step.path) from error

    def _publish(self, step: Publish) -> None:
        publish(self._root, self.folders, step.groups)

    def _delete(self, step: Delete) -> bool:
        if step.files and remove_known(self._root + step.path, step.files):
            return True
        return self.delete(step.path, at_once=step.at_once)


def _append_durably(descriptor: int, offset: int, content: bytes) -> None:
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, offset)
        raise
