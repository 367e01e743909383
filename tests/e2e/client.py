"""A command-line client with a home of its own, and a plain look at what the registry holds."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.layout import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    digest_of,
)
from tests.e2e.server import clean_environment

CLIENT_SECONDS = 120
MANIFEST_TYPES = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))


class ClientError(AssertionError):
    """A client ended with another status than 0; the text is what it wrote."""


@dataclass(frozen=True, slots=True)
class Client:
    """A program and the environment it is run in. `options` follow the program's name each time."""

    program: str
    environment: Mapping[str, str]
    options: tuple[str, ...] = ()

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """Runs the client and gives what it wrote to its standard output.

        Raises:
            ClientError: it failed, or took longer than two minutes.
        """
        command = [self.program, *self.options, *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=CLIENT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClientError(f"{' '.join(command)}\nno end after {CLIENT_SECONDS} s") from error
        if done.returncode != 0:
            raise ClientError(
                f"{' '.join(command)}\nstatus {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments))


def client_environment(home: Path, authority: Path) -> dict[str, str]:
    """A home, a configuration and a temporary folder under `home`; trusts `authority` alone."""
    for folder in ("config/docker", "run", "tmp"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "config" / "docker" / "config.json").write_text("{}")
    return {
        **clean_environment(),
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "TMPDIR": str(home / "tmp"),
        "DOCKER_CONFIG": str(home / "config" / "docker"),
        "SSL_CERT_FILE": str(authority),
    }


def client_path(program: str) -> str | None:
    """Where a client is, or None. Debian keeps some of them in sbin."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for folder in path.split(":"):
        candidate = Path(folder) / program
        if folder and candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    return None


class Witness:
    """Asks the registry itself, over plain HTTP requests, what it holds."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def digest(self, repository: str, reference: str) -> str:
        """The digest of a manifest, by its bytes; the header has to say the same."""
        answer = self._manifest("GET", repository, reference)
        answer.raise_for_status()
        from_bytes = digest_of(answer.content)
        assert answer.headers["Docker-Content-Digest"] == from_bytes
        return from_bytes

    def manifest(self, repository: str, reference: str) -> Any:
        answer = self._manifest("GET", repository, reference)
        answer.raise_for_status()
        return answer.json()

    def has(self, repository: str, reference: str) -> bool:
        return self._manifest("HEAD", repository, reference).status_code == 200

    def _manifest(self, method: str, repository: str, reference: str) -> httpx.Response:
        return self._http.request(
            method,
            f"/v2/{repository}/manifests/{reference}",
            headers={"Accept": MANIFEST_TYPES},
        )

    def tags(self, repository: str) -> list[str]:
        answer = self._http.get(f"/v2/{repository}/tags/list")
        answer.raise_for_status()
        tags: list[str] = answer.json()["tags"]
        return tags

    def blob(self, repository: str, digest: str) -> bytes:
        answer = self._http.get(f"/v2/{repository}/blobs/{digest}")
        answer.raise_for_status()
        return answer.content
