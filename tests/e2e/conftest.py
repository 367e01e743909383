"""One server over TLS for the run; each test has a home, a layout and a repository of its own."""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.client import Client, Witness, client_environment, client_path
from tests.e2e.layout import Layout
from tests.e2e.server import Certificate, Server, assert_no_traceback, running_server

FindClient = Callable[..., Client]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For localhost and 127.0.0.1. The authority lies in a folder of its own, as podman wants."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    certificate = Certificate(folder / "tls.crt", folder / "tls.key", folder / "certs.d" / "ca.crt")
    certificate.authority.parent.mkdir()
    certificate.chain.write_bytes(b"".join(part.bytes() for part in server.cert_chain_pems))
    certificate.key.write_bytes(server.private_key_pem.bytes())
    certificate.authority.write_bytes(authority.cert_pem.bytes())
    return certificate


@pytest.fixture(scope="session")
def server(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(
        storage=folder / "storage",
        log=folder / "server.log",
        secret=secrets.token_hex(16),
        certificate=certificate,
    ) as running:
        yield running
    assert_no_traceback(running.log)


@pytest.fixture
def witness(server: Server, certificate: Certificate) -> Iterator[Witness]:
    trust = ssl.create_default_context(cafile=certificate.authority)
    with httpx.Client(base_url=server.url, verify=trust, timeout=30) as http:
        yield Witness(http)


@pytest.fixture
def repository() -> str:
    """A name that no other test of this run has."""
    return f"team-{secrets.token_hex(4)}/app"


@pytest.fixture
def reference(server: Server, repository: str) -> str:
    """The repository as clients write it."""
    return f"{server.address}/{repository}"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder with a short name: podman's run folder and sockets need one."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        yield Path(folder)


@pytest.fixture
def client(tmp_path: Path, certificate: Certificate) -> FindClient:
    """Finds a client: `client("crane")`, with the options that go before each command.

    A missing client is a failure in CI, where all are installed, and a skip elsewhere.
    """

    def find(program: str, *options: str, home: str = "home") -> Client:
        path = client_path(program)
        if path is None:
            reason = f"{program} is not installed (`.ci/run` shows where each client comes from)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return Client(path, client_environment(tmp_path / home, certificate.authority), options)

    return find
