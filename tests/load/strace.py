"""Reads what `strace -f -y` wrote: system calls with the lines at which they began and ended."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

TRACED: Final = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,"
    "copy_file_range,sendfile,splice,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,mkdir,mkdirat,unlink,unlinkat,rmdir,"
    "read,recvfrom,recvmsg,sendto,sendmsg"
)
"""the calls that change files and folders, make them durable, or talk to clients"""

_LINE: Final = re.compile(r"(\d+)\s+(.*)")
_WHOLE: Final = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?)(.*)", re.DOTALL)
_BEGUN: Final = re.compile(r"(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED: Final = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_DESCRIPTOR: Final = re.compile(r"\d+<([^>]*)>")
_TEXT: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that succeeded. `begun` and `ended` are numbers of lines: of two calls, one is
    surely before the other where its end is before the other's begin."""

    name: str
    arguments: str
    result: str
    begun: int
    ended: int

    @property
    def file(self) -> str:
        """The file or socket of the descriptor that is the first argument; empty for none."""
        found = _DESCRIPTOR.match(self.arguments)
        return found[1] if found else ""

    @property
    def opened(self) -> str:
        """The file of the descriptor that is the result; empty for none."""
        found = re.match(r"<([^>]*)>", self.result)
        return found[1] if found else ""

    @property
    def texts(self) -> list[str]:
        """The quoted arguments: paths, or the begin of what was read or written."""
        return _TEXT.findall(self.arguments)


def parse(lines: Iterable[str]) -> list[Call]:
    """The calls that succeeded, in the order in which they ended."""
    calls = []
    pending: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(lines):
        split = _LINE.match(line)
        if split is None:
            continue
        thread, text = split.groups()
        begun = number
        if unfinished := _BEGUN.match(text):
            pending[thread] = (f"{unfinished[1]}({unfinished[2]}", number)
            continue
        if resumed := _RESUMED.match(text):
            start, begun = pending.pop(thread, ("", number))
            text = start + resumed[2]
        whole = _WHOLE.match(text)
        if whole is not None and not whole[3].startswith("-") and whole[3] != "?":
            calls.append(Call(whole[1], whole[2], whole[4], begun, number))
    return calls
