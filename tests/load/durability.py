"""Would everything that was answered for be there after a power loss? Judged from a trace of the
server's system calls, taken while one client sent one request after the other.

The rules: what gets a name by a rename was synced before it, all of it; the folder with the new
name, and each folder above it that was made, is synced by its parent before the answer; bytes that
were answered for are synced; links appear only after what they lead to is durable; nothing is done
once the answer is out. Exempt are the notes about open uploads, which are not promised, and what is
on its way out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os.path import dirname
from typing import Final

from tests.load.strace import Call

_REQUEST: Final = re.compile(r"(HEAD|GET|POST|PUT|PATCH|DELETE) (/\S*)(?: HTTP/1\.1|$)")
"""the trace may have cut the line"""

_ANSWER: Final = re.compile(r"HTTP/1\.1 ([2-5]\d\d)")
_NOTE: Final = re.compile(r"/_uploads/[^/]+/(?:startedat|hashstates/.*)$")
_TEMPORARY: Final = re.compile(r"/\.new-|\.tmp(?:$|/)")
_DOOMED: Final = re.compile(r"/\.del-")

_ORDER: Final = (
    re.compile(r"/v2/blobs/"),
    re.compile(r"/(?:_layers|_manifests/revisions|_referrers)/"),
    re.compile(r"/_manifests/tags/[^/]+/index/"),
    re.compile(r"/_manifests/tags/[^/]+(?:/current/link)?$"),
)
"""what has to be durable before what comes after it may appear"""

_WRITES: Final = frozenset(
    ("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate", "sendfile")
)
_RECEIVES: Final = frozenset(("read", "recvfrom", "recvmsg"))
_SENDS: Final = frozenset(("write", "writev", "sendto", "sendmsg"))
_RENAMES: Final = frozenset(("rename", "renameat", "renameat2"))
_UNKNOWN: Final = frozenset(
    ("link", "linkat", "symlink", "symlinkat", "truncate", "splice", "copy_file_range")
)
_CHANGES: Final = frozenset(("mkdir", "mkdirat", "unlink", "unlinkat", "rmdir")) | _RENAMES


@dataclass(slots=True)
class _Node:
    """A file or folder by its path now. All are numbers of lines; None: not yet.

    `changed` and `synced` are about its bytes, `entered` and `kept` about its name in the folder
    above it.
    """

    is_folder: bool
    changed: int
    entered: int
    synced: int | None = None
    kept: int | None = None


@dataclass(slots=True)
class _Exchange:
    """One request while it runs: the paths it has renamed to and written to."""

    what: str
    renamed: dict[str, None] = field(default_factory=dict)
    written: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Judgement:
    """`faults` in words, one for each broken rule; `renames` and `answers` that were judged."""

    faults: list[str] = field(default_factory=list)
    renames: int = 0
    answers: int = 0


class _Judge:
    def __init__(self, root: str) -> None:
        self.judgement = Judgement()
        self._root = root
        self._nodes: dict[str, _Node] = {}
        self._exchange: _Exchange | None = None

    def look_at(self, call: Call) -> None:
        if call.file.startswith("socket:"):
            self._converse(call)
        elif call.name in ("open", "openat", "creat"):
            if self._is_ours(call.opened):
                self._open(call)
        elif call.name in _WRITES and self._is_ours(call.file):
            self._in_time(call)
            self._change(call.file, call)
        elif call.name in ("fsync", "fdatasync"):
            self._sync(call)
        elif call.name in _CHANGES and self._is_ours(call.texts[-1]):
            self._in_time(call)
            self._rearrange(call)
        elif call.name in _UNKNOWN and any(map(self._is_ours, call.texts)):
            self._fault(call.begun, f"{call.name} has no place here: {call.arguments}")

    def _is_ours(self, path: str) -> bool:
        return path.startswith(f"{self._root}/")

    def _fault(self, line: int, text: str) -> None:
        self.judgement.faults.append(f"line {line + 1}: {text.replace(self._root, '')}")

    def _in_time(self, call: Call) -> None:
        if self._exchange is None:
            self._fault(call.begun, f"{call.name} while no request runs: {call.arguments[:300]}")

    def _converse(self, call: Call) -> None:
        text = call.texts[0] if call.texts else ""
        if call.name in _RECEIVES and (request := _REQUEST.match(text)):
            self._exchange = _Exchange(f"{request[1]} {request[2]}")
        elif call.name in _SENDS and (answer := _ANSWER.match(text)) and self._exchange:
            if answer[1].startswith("2"):
                self._answer(self._exchange, call)
            self._exchange = None

    def _answer(self, exchange: _Exchange, call: Call) -> None:
        self.judgement.answers += 1
        for path in exchange.renamed:
            if path in self._nodes:
                for what in self._not_kept(path, call.begun):
                    self._fault(call.begun, f"{exchange.what} is answered before {what} is durable")
        for path in exchange.written:
            node = self._nodes.get(path)
            if node is None or _NOTE.search(path):
                continue
            if _TEMPORARY.search(path):
                self._fault(call.begun, f"{exchange.what} leaves {path} behind")
            if not _before(node.synced, call.begun):
                self._fault(call.begun, f"{exchange.what} is answered before {path} is synced")

    def _not_kept(self, path: str, line: int) -> Iterator[str]:
        """The path and the folders above it whose names are not durable before the line."""
        while self._is_ours(path):
            node = self._nodes.get(path)
            if node is not None and not _before(node.kept, line):
                yield f"the name {path}"
            path = dirname(path)

    def _open(self, call: Call) -> None:
        path = call.opened
        if "O_CREAT" in call.arguments or call.name == "creat":
            if path not in self._nodes:
                self._in_time(call)
                self._enter(path, call, is_folder=False)
            elif "O_TRUNC" in call.arguments:
                self._change(path, call)

    def _enter(self, path: str, call: Call, *, is_folder: bool) -> None:
        self._nodes[path] = _Node(is_folder, changed=call.ended, entered=call.ended)
        if not is_folder and self._exchange is not None:
            self._exchange.written[path] = None

    def _change(self, path: str, call: Call) -> None:
        # A file of before the trace is known from now on; its name is taken as durable.
        node = self._nodes.setdefault(path, _Node(False, call.ended, entered=-1, kept=-1))
        node.changed, node.synced = call.ended, None
        if self._exchange is not None:
            self._exchange.written[path] = None

    def _sync(self, call: Call) -> None:
        node = self._nodes.get(call.file)
        if node is not None and not node.is_folder:
            if node.changed < call.begun and node.synced is None:
                node.synced = call.ended
            return
        for path, child in self._nodes.items():
            if dirname(path) == call.file and child.entered < call.begun and child.kept is None:
                child.kept = call.ended

    def _rearrange(self, call: Call) -> None:
        path = call.texts[-1]
        if call.name in ("mkdir", "mkdirat"):
            self._enter(path, call, is_folder=True)
        elif call.name in _RENAMES:
            self._rename(call.texts[0], path, call)
        else:
            self._nodes.pop(path, None)

    def _rename(self, source: str, target: str, call: Call) -> None:
        vanishes = _DOOMED.search(target) is not None
        if not vanishes:
            self.judgement.renames += 1
            self._check_source(source, target, call)
            self._check_order(target, call)
        for path in self._below(target):
            del self._nodes[path]
        for path in self._below(source):
            self._nodes[target + path[len(source) :]] = self._nodes.pop(path)
        node = self._nodes.setdefault(target, _Node(False, -1, entered=-1, synced=-1))
        node.entered, node.kept = call.ended, None
        if self._exchange is not None and not vanishes:
            self._exchange.written.pop(source, None)
            self._exchange.renamed[target] = None

    def _check_source(self, source: str, target: str, call: Call) -> None:
        for path in self._below(source):
            node = self._nodes[path]
            if not node.is_folder and not _before(node.synced, call.begun):
                self._fault(call.begun, f"{path} becomes {target} and is not synced")
            if path != source and not _before(node.kept, call.begun):
                self._fault(call.begun, f"{path} becomes part of {target}, its name not durable")

    def _check_order(self, target: str, call: Call) -> None:
        rank = _rank(target)
        if rank is None:
            self._fault(call.begun, f"{target} is not in the layout")
            return
        for earlier in self._exchange.renamed if self._exchange else ():
            before = _rank(earlier)
            if before is not None and before < rank and earlier in self._nodes:
                for what in self._not_kept(earlier, call.begun):
                    self._fault(call.begun, f"{target} appears before {what} is durable")

    def _below(self, top: str) -> list[str]:
        return [path for path in self._nodes if path == top or path.startswith(f"{top}/")]


def _before(moment: int | None, line: int) -> bool:
    return moment is not None and moment < line


def _rank(path: str) -> int | None:
    return next((rank for rank, kind in enumerate(_ORDER) if kind.search(path)), None)


def judge(calls: Sequence[Call], root: str) -> Judgement:
    """What a power loss could undo of what was answered, for the storage folder `root`."""
    bench = _Judge(root)
    for call in calls:
        bench.look_at(call)
    return bench.judgement
