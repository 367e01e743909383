"""The registries that are measured: how each is started, found ready, collected and ended.

All listen on 127.0.0.1 only and keep their data below a folder of the run. All have the same duty:
fsync as they ship, deletes on, no access log, no purging of uploads in the background.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import trustme

from bench.clients import Client, Target

OURS: Final = "ours"
_START_LIMIT: Final = 60.0
_STOP_LIMIT: Final = 15.0


class PeerFailed(Exception):
    """A registry did not start, or ended by itself."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of PEM files: chain, key, and the authority that clients trust."""

    chain: str
    key: str
    authority: str


def make_certificate(folder: str) -> Certificate:
    """An ECDSA certificate for 127.0.0.1 with an authority of its own, written below `folder`."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    paths = Certificate(f"{folder}/server.crt", f"{folder}/server.key", f"{folder}/authority.crt")
    leaf.private_key_pem.write_to_path(paths.key)
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(paths.chain, append=True)
    authority.cert_pem.write_to_path(paths.authority)
    return paths


@dataclass(frozen=True, slots=True)
class Place:
    """Where a registry runs: its port, its data, and its certificate (None: plain HTTP)."""

    port: int
    root: str
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


class Recipe(Protocol):
    """How one kind of registry is run."""

    @property
    def name(self) -> str: ...

    @property
    def shared_layout(self) -> bool:
        """Whether its data may be laid straight on the disk, in the layout of the CNCF distribution
        registry.
        """
        ...

    def missing(self) -> str | None:
        """Why it cannot be run here, or None."""
        ...

    def serve(self, place: Place) -> Command: ...

    def collect(self, place: Place) -> Command | None:
        """The offline garbage collection, or None where there is no such command."""
        ...


@dataclass(frozen=True, slots=True)
class Ours:
    """This repository's registry, run by the interpreter `python` out of the working directory."""

    python: str
    name: str = OURS
    shared_layout: bool = True

    def missing(self) -> str | None:
        done = subprocess.run(
            [self.python, "-c", "import registry.__main__"], capture_output=True, text=True
        )
        return (
            None
            if done.returncode == 0
            else f"{self.python} cannot import it: {done.stderr.strip()[-300:]}"
        )

    def serve(self, place: Place) -> Command:
        return Command((self.python, "-m", "registry", "serve"), self._environment(place))

    def collect(self, place: Place) -> Command:
        flags = ("--confirm", "--force", "--grace-period", "0s")
        return Command((self.python, "-m", "registry", "gc", *flags), self._environment(place))

    @staticmethod
    def _environment(place: Place) -> dict[str, str]:
        environment = {
            "REGISTRY_HTTP_ADDR": f"127.0.0.1:{place.port}",
            "REGISTRY_HTTP_SECRET": "bench",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": place.root,
            "REGISTRY_ALAUDA_AUTH_MODE": "none",
            "REGISTRY_LOG_LEVEL": "error",
            "REGISTRY_LOG_ACCESSLOG_DISABLED": "true",
        }
        if place.certificate:
            environment["REGISTRY_HTTP_TLS_CERTIFICATE"] = place.certificate.chain
            environment["REGISTRY_HTTP_TLS_KEY"] = place.certificate.key
        return environment


_DISTRIBUTION: Final = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  delete: {{enabled: true}}
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {root}}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http:
  addr: 127.0.0.1:{port}
  secret: bench
{tls}"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The CNCF distribution registry, version 2 or 3."""

    name: str
    binary: str
    shared_layout: bool = True

    def missing(self) -> str | None:
        return None if shutil.which(self.binary) else f"there is no command {self.binary}"

    def serve(self, place: Place) -> Command:
        return self._command("serve", place)

    def collect(self, place: Place) -> Command:
        return self._command("garbage-collect", place)

    def _command(self, verb: str, place: Place) -> Command:
        config = f"{place.root}.yml"
        pair = place.certificate
        tls = f"  tls: {{certificate: {pair.chain}, key: {pair.key}}}\n" if pair else ""
        with open(config, "w") as file:
            file.write(_DISTRIBUTION.format(root=place.root, port=place.port, tls=tls))
        # Version 3 would look for a trace collector.
        return Command((self.binary, verb, config), {"OTEL_TRACES_EXPORTER": "none"})


@dataclass(frozen=True, slots=True)
class Given:
    """Any registry that one command starts; `{port}`, `{root}`, `{cert}`, `{key}` are filled in."""

    name: str
    template: str
    shared_layout: bool = False

    def missing(self) -> str | None:
        command = shlex.split(self.template)[0]
        return None if shutil.which(command) else f"there is no command {command}"

    def serve(self, place: Place) -> Command:
        pair = place.certificate
        names = {"cert": pair.chain, "key": pair.key} if pair else {"cert": "", "key": ""}
        line = self.template.format(port=place.port, root=place.root, **names)
        return Command(tuple(shlex.split(line)))

    def collect(self, place: Place) -> None:
        return None


def environment_of(command: Command) -> dict[str, str]:
    """Our environment with the command's, and without what would configure a registry by chance."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")
    }
    return {**inherited, **command.environment}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Peer:
    """A registry that runs while the `with` block does. Raises PeerFailed if it does not get ready
    in a minute.
    """

    def __init__(self, recipe: Recipe, root: str, certificate: Certificate | None = None) -> None:
        self.recipe: Final = recipe
        self.place: Final = Place(free_port(), root, certificate)
        self.target: Final = Target(self.place.port, certificate.authority if certificate else None)
        self.start_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def pid(self) -> int:
        if self._process is None:
            raise PeerFailed(f"{self.name} is not running")
        return self._process.pid

    def __enter__(self) -> Peer:
        os.makedirs(self.place.root, exist_ok=True)
        command = self.recipe.serve(self.place)
        begun = time.perf_counter()
        with open(self._log, "ab") as log:
            # A session of its own: ^C reaches the benchmark only, which then ends its peers in
            # order.
            self._process = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment_of(command),
                start_new_session=True,
            )
        try:
            self._wait_ready(begun)
        except BaseException:
            self._end()
            raise
        self.start_seconds = time.perf_counter() - begun
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    @property
    def _log(self) -> str:
        return f"{self.place.root}.log"

    def _wait_ready(self, begun: float) -> None:
        while True:
            with contextlib.suppress(OSError), Client(self.target) as client:
                if client.request("GET", "/v2/").status in (200, 401):
                    return
            if self._process is None or self._process.poll() is not None:
                raise PeerFailed(f"{self.name} ended at its start: {self._last_words()}")
            if time.perf_counter() - begun > _START_LIMIT:
                raise PeerFailed(f"{self.name} does not answer GET /v2/: {self._last_words()}")
            time.sleep(0.005)

    def _last_words(self) -> str:
        with open(self._log, errors="replace") as file:
            return file.read()[-500:].strip() or "its log is empty"

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_LIMIT)
        finally:
            # Its session is its process group: whatever it left behind goes too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
