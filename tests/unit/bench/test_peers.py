"""How the registries are run: commands and environments only."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import yaml

from bench.peers import (
    Certificate,
    Command,
    Distribution,
    Given,
    Ours,
    Place,
    environment_of,
    make_certificate,
)

_PAIR = Certificate("/c.crt", "/c.key", "/ca.crt")


def test_ours_is_configured_by_environment() -> None:
    command = Ours("python3").serve(Place(5001, "/data/ours"))
    assert command.argv == ("python3", "-m", "registry", "serve")
    assert command.environment["REGISTRY_HTTP_ADDR"] == "127.0.0.1:5001"
    assert command.environment["REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"] == "/data/ours"
    assert not [name for name in command.environment if "TLS" in name]


def test_ours_gets_its_certificate() -> None:
    environment = Ours("python3").serve(Place(5001, "/data/ours", _PAIR)).environment
    assert environment["REGISTRY_HTTP_TLS_CERTIFICATE"] == "/c.crt"
    assert environment["REGISTRY_HTTP_TLS_KEY"] == "/c.key"


def test_ours_collects_the_same_folder_without_grace() -> None:
    command = Ours("python3").collect(Place(5001, "/data/ours"))
    assert command.argv[-4:] == ("--confirm", "--force", "--grace-period", "0s")
    assert command.environment["REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"] == "/data/ours"


@pytest.mark.parametrize("pair", [None, _PAIR], ids=["plain", "tls"])
def test_distribution_is_configured_by_a_file(tmp_path: Path, pair: Certificate | None) -> None:
    place = Place(5002, str(tmp_path / "root"), pair)
    command = Distribution("dist2", "docker-registry").serve(place)
    assert command.argv[:2] == ("docker-registry", "serve")
    config = yaml.safe_load(Path(command.argv[2]).read_text())
    assert config["http"]["addr"] == "127.0.0.1:5002"
    assert config["storage"]["filesystem"]["rootdirectory"] == place.root
    assert config["storage"]["maintenance"]["uploadpurging"] == {"enabled": False}
    expected = {"certificate": "/c.crt", "key": "/c.key"} if pair else None
    assert config["http"].get("tls") == expected


def test_given_command_is_filled_in_and_split() -> None:
    recipe = Given("zot", "zot serve --port {port} --root '{root}' {cert} {key}")
    command = recipe.serve(Place(5003, "/da ta", _PAIR))
    assert command.argv == (
        *("zot", "serve", "--port", "5003", "--root", "/da ta"),
        *("/c.crt", "/c.key"),
    )


def test_missing_command_is_told() -> None:
    assert Distribution("dist3", "/nowhere/registry").missing() is not None
    assert Given("x", "/nowhere/registry {port}").missing() is not None
    assert Given("x", "sh -c 'true {port}'").missing() is None


def test_variables_for_another_registry_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "0.0.0.0:1")
    monkeypatch.setenv("OTHER", "kept")
    environment = environment_of(Command(("x",), {"ADDED": "1"}))
    assert "REGISTRY_HTTP_ADDR" not in environment
    assert (environment["OTHER"], environment["ADDED"]) == ("kept", "1")


def test_certificate_fits_its_key_and_authority(tmp_path: Path) -> None:
    pair = make_certificate(str(tmp_path))
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(pair.chain, pair.key)
    assert ssl.create_default_context(cafile=pair.authority).cert_store_stats()["x509_ca"] == 1
