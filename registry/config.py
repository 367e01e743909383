"""Loads the registry's configuration: the defaults of the place it runs in, and what may not be.

`check-config` and `serve` both go through `load_config`, so that they say the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from registry.config_keys import Alauda, Config, Filesystem, Http, Storage, Tls
from serving.config_schema import variable_of
from serving.configuration import PATH_VARIABLE, ConfigError, load
from serving.durations import Duration

__all__ = ["Config", "ConfigError", "load_config", "with_defaults"]

CLUSTER_VARIABLE: Final = "KUBERNETES_SERVICE_HOST"
"""is set in every container of a cluster"""

_CLUSTER_TLS: Final = ("/etc/secrets/tls.crt", "/etc/secrets/tls.key")
_CLUSTER_DRAIN_DELAY: Final = Duration(25)


def load_config(
    path: str | None, environ: Mapping[str, str], *, strict: bool = False
) -> tuple[Config, list[str]]:
    """The configuration, and what is to be warned of.

    It is read from the file `path`, else from the one that REGISTRY_CONFIGURATION_PATH names, else
    there are only variables and defaults. Raises ConfigError with all that is wrong; with
    `strict` variables that are no key too.
    """
    path = path or environ.get(variable_of(PATH_VARIABLE))
    loaded = load(Config, _read(path) if path else None, environ, strict=strict)
    config = with_defaults(loaded.config, loaded.given, environ)
    problems = [*_wrong_values(config), *_wrong_combinations(config), *_not_in_this_build(config)]
    if problems:
        raise ConfigError(*problems)
    return config, [*loaded.warnings, *_warnings(config)]


def with_defaults(config: Config, given: frozenset[str], environ: Mapping[str, str]) -> Config:
    """`config` with the defaults of a cluster where it is to run in one, and with a storage driver.

    `given` are the keys that stay as they are. In a cluster, or with a kubeconfig, rights are on
    unless they are switched off in writing; most other defaults follow the rights.
    """
    in_cluster = bool(environ.get(CLUSTER_VARIABLE) or config.alauda.kubeconfig)
    if in_cluster and "alauda.auth.mode" not in given:
        auth = replace(config.alauda.auth, mode="kubernetes")
        config = replace(config, alauda=replace(config.alauda, auth=auth))
    if config.has_rights:
        config = replace(
            config,
            http=_http_with_rights(config.http, given),
            alauda=_alauda_with_rights(config.alauda, given),
        )
    root = "/registry" if in_cluster or config.has_rights else Filesystem().rootdirectory
    return replace(config, storage=_with_driver(config.storage, given, root))


def _http_with_rights(http: Http, given: frozenset[str]) -> Http:
    tls = http.tls
    # Of a pair with only one half given the other is missing, not the default.
    if given.isdisjoint({"http.tls.certificate", "http.tls.key"}):
        certificate, key = _CLUSTER_TLS
        tls = replace(tls, certificate=certificate, key=key)
    return replace(
        http,
        addr=http.addr if "http.addr" in given else ":5000",
        draindelay=http.draindelay if "http.draindelay" in given else _CLUSTER_DRAIN_DELAY,
        tls=tls,
    )


def _alauda_with_rights(alauda: Alauda, given: frozenset[str]) -> Alauda:
    return replace(
        alauda,
        naming=alauda.naming if "alauda.naming" in given else "namespaced",
        metadata=alauda.metadata if "alauda.metadata" in given else "imageapi",
    )


def _with_driver(storage: Storage, given: frozenset[str], root: str) -> Storage:
    if storage.driver not in ("", "filesystem") or "storage.filesystem.rootdirectory" in given:
        return storage
    return replace(storage, filesystem=Filesystem(root))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"the configuration file {path} cannot be read: {reason}") from error


def _wrong_values(config: Config) -> Iterator[str]:
    """Values of the right type that say nothing."""
    http, auth = config.http, config.alauda.auth
    try:
        _ = http.address
    except ValueError as error:
        yield f"http.addr {error}, not {http.addr!r}"
    for key, origin in (("http.host", http.host), ("alauda.auth.tokenrealm", auth.tokenrealm)):
        if origin and not _is_origin(origin):
            yield f"{key} must be a scheme and a host alone, such as https://registry.example.org"
    files = config.storage.filesystem
    if files is not None and not files.rootdirectory:
        yield "storage.filesystem.rootdirectory must not be empty"


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and "@" not in parts.netloc
        and text.lower() == f"{parts.scheme}://{parts.netloc}".lower()
    )


def _wrong_combinations(config: Config) -> Iterator[str]:
    http, alauda = config.http, config.alauda
    free = alauda.naming == "free"
    if config.has_rights and free:
        yield "alauda.auth.mode: kubernetes needs alauda.naming: namespaced"
    if alauda.metadata == "imageapi" and not config.has_rights:
        yield "alauda.metadata: imageapi needs alauda.auth.mode: kubernetes"
    if alauda.metadata == "imageapi" and free:
        yield "alauda.metadata: imageapi needs alauda.naming: namespaced"
    yield from _half_pair(http.tls)
    if config.has_rights and not http.secret:
        yield "http.secret is empty: with rights on, all replicas need one and the same secret"


def _half_pair(tls: Tls) -> Iterator[str]:
    if tls.certificate and not tls.key:
        yield "http.tls.certificate is set without http.tls.key"
    if tls.key and not tls.certificate:
        yield "http.tls.key is set without http.tls.certificate"


def _not_in_this_build(config: Config) -> Iterator[str]:
    """What later builds bring, and this one must not seem to do."""
    if config.has_rights:
        yield (
            "alauda.auth.mode: kubernetes is not in this build yet; "
            "alauda.auth.mode: none starts a registry in which every caller holds every right"
        )
    if config.alauda.metadata == "imageapi":
        yield "alauda.metadata: imageapi is not in this build yet; use alauda.metadata: storage"
    if config.storage.driver not in ("filesystem", "inmemory"):
        yield f"the driver storage.{config.storage.driver} is not in this build yet"


def _warnings(config: Config) -> Iterator[str]:
    http = config.http
    if config.has_rights:
        if not http.tls.certificate:
            yield "http.tls.certificate is not set: the tokens of all callers travel in clear"
        return
    if not _is_loopback(http.address[0]):
        yield (
            f"NO RIGHTS ARE CHECKED and http.addr {http.addr} is open to other machines: "
            "whoever can reach it may pull, push and delete everything (alauda.auth.mode is none)"
        )
    if not http.secret:
        yield (
            "http.secret is empty: one is made for this run, so that uploads under way end with it "
            "and no other replica can go on with them"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
