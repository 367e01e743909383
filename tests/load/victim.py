"""The registry as processes that are killed: all of them at once, without a warning, by their
ids."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.e2e.server import PROJECT, clean_environment, free_port
from tests.load.wire import ServerLost, Violation, Wire

_READY_LIMIT: Final = 20.0
_STOP_LIMIT: Final = 40.0
"""seconds; the server may finish running requests first, for which it takes 29 s at the most"""


class Victim:
    """One storage folder and the processes that serve it, if any."""

    def __init__(self, storage: Path, log: Path) -> None:
        self.log = log
        self.port = 0
        self._settings = {
            "REGISTRY_HTTP_SECRET": "crash",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(storage),
            "REGISTRY_ALAUDA_AUTH_MODE": "none",
            "REGISTRY_LOG_ACCESSLOG_DISABLED": "true",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._handles: list[int] = []
        """one for each process: a handle never means another process, as a used number may"""

    def start(self, workers: int) -> None:
        """Ready when this returns; on a new port. Raises Violation."""
        self.port = free_port()
        settings = {
            **self._settings,
            "REGISTRY_HTTP_ADDR": f"127.0.0.1:{self.port}",
            "REGISTRY_HTTP_WORKERS": str(workers),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "registry", "serve"],
                cwd=PROJECT,
                env={**clean_environment(), **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait_until_ready(self._process)
        self._take_handles(self._process, workers)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_LIMIT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise Violation(f"the server ended at its start ({process.returncode}): {self.log}")
            try:
                with Wire(self.port) as wire:
                    if wire.call("GET", "/readyz").status == 200:
                        return
            except ServerLost:
                pass
            time.sleep(0.01)
        raise Violation(f"the server is not ready after {_READY_LIMIT:.0f} s: {self.log}")

    def _take_handles(self, process: subprocess.Popen[bytes], workers: int) -> None:
        count = workers if workers > 1 else 0
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + _READY_LIMIT
        while len(pids := children.read_text().split()) < count:
            if time.monotonic() > deadline:
                raise Violation(f"{len(pids)} of {count} workers are running: {self.log}")
            time.sleep(0.01)
        self._handles = [os.pidfd_open(pid) for pid in (process.pid, *map(int, pids))]

    def kill(self, order: random.Random) -> None:
        """SIGKILL to all processes, in any order; none is left when this returns."""
        order.shuffle(self._handles)
        for handle in self._handles:
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            except ProcessLookupError as error:
                raise Violation(
                    f"a process of the server had ended by itself: {self.log}"
                ) from error
        self._wait_until_gone()

    def _wait_until_gone(self) -> None:
        assert self._process is not None
        self._process.wait()
        for handle in self._handles:
            if not select.select([handle], [], [], _READY_LIMIT)[0]:
                raise Violation("a process does not end of SIGKILL")
            os.close(handle)
        self._handles = []
        self._process = None

    def stop(self) -> None:
        """Ends the server as people do. Raises Violation where it does not end well."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.destroy()
            raise Violation(f"the server does not stop of SIGTERM: {self.log}") from None
        self._wait_until_gone()
        if status != 0:
            raise Violation(f"the server ended with {status}: {self.log}")

    def destroy(self) -> None:
        """Whatever happened, nothing is left running."""
        if self._process is not None:
            for handle in self._handles:
                try:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._process.kill()
            self._wait_until_gone()

    def collect(self, *options: str) -> str:
        """The output of `registry gc` on the storage. Raises Violation for an exit code but 0."""
        done = subprocess.run(
            [sys.executable, "-m", "registry", "gc", *options],
            cwd=PROJECT,
            env={**clean_environment(), **self._settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode != 0:
            raise Violation(f"gc ends with {done.returncode}: {done.stderr}{done.stdout[-3000:]}")
        return done.stdout

    def check_log(self) -> None:
        """Raises Violation where the server had an error of its own."""
        text = self.log.read_text(errors="replace")
        at = text.find("Traceback (most recent call last)")
        if at >= 0:
            raise Violation(f"the server logged a traceback:\n{text[max(0, at - 500) : at + 4000]}")
