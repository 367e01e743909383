"""Worker processes on the same listening sockets, for small replies on more than one core.

The parent makes the sockets before, forks while it has neither threads nor a loop, and does nothing
else than watch: it never accepts, so no connection is lost with it. One worker is the parent
itself.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Final

BACK_OFF: Final = 1.0
"""seconds before a worker that died is started again"""

STARTUP: Final = 5.0
"""seconds in which a worker that exits with an error means that the whole cannot start"""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_PR_SET_PDEATHSIG: Final = 1

logger = logging.getLogger(__name__)


def run(workers: int, sockets: Sequence[socket.socket], child: Callable[[int], int]) -> int:
    """Runs `child(index)` in `workers` processes until all have ended; returns the exit code.

    SIGTERM and SIGINT are passed on. A worker that dies otherwise is started again. `sockets` are
    closed here once the workers stop. Must be called before any thread or event loop is made.
    """
    if workers == 1:
        return child(0)
    return _Parent(workers, sockets, child).run()


class _Parent:
    def __init__(
        self, workers: int, sockets: Sequence[socket.socket], child: Callable[[int], int]
    ) -> None:
        self._sockets = sockets
        self._child = child
        self._alive: dict[int, int] = {}
        """pid -> index"""
        self._due = dict.fromkeys(range(workers), 0.0)
        """index -> when it is to be started"""
        self._stopping = False
        self._code = 0

    def run(self) -> int:
        gc.collect()
        gc.freeze()  # the collector would touch, and so copy, every page that is shared
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        begun = time.monotonic()
        try:
            while self._alive or not self._stopping:
                self._start_due(mask)
                self._wait()
                self._reap(young=time.monotonic() - begun < STARTUP)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return self._code

    def _start_due(self, mask: set[int | signal.Signals]) -> None:
        now = time.monotonic()
        for index in [index for index, due in self._due.items() if due <= now]:
            del self._due[index]
            parent = os.getpid()
            pid = os.fork()
            if not pid:
                self._be_worker(index, parent, mask)
            self._alive[pid] = index

    def _be_worker(self, index: int, parent: int, mask: set[int | signal.Signals]) -> None:
        """The new process. Never returns."""
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() == parent:  # else it died before the line above
                code = self._child(index)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _wait(self) -> None:
        """Until a signal comes or a worker is due."""
        due = min(self._due.values(), default=time.monotonic() + BACK_OFF)
        got = signal.sigtimedwait(_SIGNALS, max(0.0, due - time.monotonic()))
        if got is not None and got.si_signo != signal.SIGCHLD:
            self._stop(got.si_signo)

    def _stop(self, number: int) -> None:
        self._stopping = True
        self._due.clear()
        for pid in self._alive:
            os.kill(pid, number)
        for listening in self._sockets:
            listening.close()

    def _reap(self, *, young: bool) -> None:
        while self._alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            index = self._alive.pop(pid, None)
            if index is not None:
                self._ended(index, os.waitstatus_to_exitcode(status), young=young)

    def _ended(self, index: int, code: int, *, young: bool) -> None:
        if self._stopping:
            if code not in (0, -signal.SIGTERM, -signal.SIGINT):
                self._code = self._code or (code if code > 0 else 1)
        elif young and code > 0:
            logger.error("worker %d could not start (exit code %d)", index, code)
            self._code = code
            self._stop(signal.SIGTERM)
        else:
            logger.error("worker %d ended (%d); it is started again", index, code)
            self._due[index] = time.monotonic() + BACK_OFF
