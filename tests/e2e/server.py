"""Starts the registry as its own process, the way a person does, and ends it again.

The only place that knows the command and the environment of the server under test; the conformance
run uses it too.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 20.0
# The server may finish running requests first; its own limit is 29 s.
STOP_SECONDS = 40.0
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: of the server (chain and key), and of the authority that clients trust."""

    chain: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class Server:
    """A running registry. `address` is host:port; `pid` is the process that was started (the parent
    of the workers, if there are several)."""

    address: str
    port: int
    url: str
    log: Path
    pid: int


class ServerError(Exception):
    """The server did not start, or did not end as it should; the text holds the end of its log."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment() -> dict[str, str]:
    """The caller's environment without settings of a registry of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}


@contextmanager
def running_server(
    *,
    storage: Path,
    log: Path,
    secret: str,
    certificate: Certificate | None = None,
    workers: int = 1,
    host: str = "localhost",
    extra: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A registry without rights on a free loopback port: ready when this yields, ended after.
    `extra` are further variables, which win over those set here.

    Raises:
        ServerError: not ready in time, died, or did not end cleanly on SIGTERM.
    """
    port = free_port()
    settings = {
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_HTTP_SECRET": secret,
        "REGISTRY_HTTP_WORKERS": str(workers),
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(storage),
        "REGISTRY_ALAUDA_AUTH_MODE": "none",
        "REGISTRY_LOG_ACCESSLOG_DISABLED": "true",
    }
    if certificate is not None:
        settings["REGISTRY_HTTP_TLS_CERTIFICATE"] = str(certificate.chain)
        settings["REGISTRY_HTTP_TLS_KEY"] = str(certificate.key)
    scheme = "http" if certificate is None else "https"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "registry", "serve"],
            cwd=PROJECT,
            env={**clean_environment(), **settings, **(extra or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"{scheme}://{host}:{port}"
    server = Server(f"{host}:{port}", port, url, log, process.pid)
    try:
        _wait_until_ready(process, server, certificate)
        yield server
    finally:
        status = _stop(process)
    if status != 0:
        raise ServerError(f"the server ended with status {status}\n{_tail(log)}")


def _wait_until_ready(
    process: subprocess.Popen[bytes], server: Server, certificate: Certificate | None
) -> None:
    trust = ssl.create_default_context(cafile=certificate.authority) if certificate else None
    deadline = time.monotonic() + READY_SECONDS
    reason = "no answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(
                f"the server ended at start with status {process.returncode}\n{_tail(server.log)}"
            )
        try:
            with urllib.request.urlopen(f"{server.url}/readyz", timeout=2, context=trust):
                return
        except urllib.error.HTTPError as error:
            reason = f"/readyz answers {error.code}"
            error.close()
        except OSError as error:
            reason = str(error)
        time.sleep(0.05)
    raise ServerError(f"not ready after {READY_SECONDS:.0f} s: {reason}\n{_tail(server.log)}")


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Ends the server as Kubernetes does: SIGTERM, then SIGKILL. Gives its exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def assert_no_traceback(log: Path) -> None:
    """No client may bring the server to an error of its own.

    Raises:
        ServerError: there is a traceback in its log.
    """
    if "Traceback (most recent call last)" in log.read_text(errors="replace"):
        raise ServerError(f"the server logged a traceback\n{_tail(log, lines=80)}")


def _tail(log: Path, lines: int = 40) -> str:
    text = log.read_text(errors="replace").splitlines()
    return "\n".join(text[-lines:])
