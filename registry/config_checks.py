"""Loads the registry's configuration: the defaults of the place it runs in, and what may not be.

`check-config` and `serve` both go through `load_config`, so that they say the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from registry.config import Config, Filesystem, Http, InMemory, Storage
from serving.config_schema import variable_of
from serving.configuration import ConfigError, load
from serving.durations import Duration

PATH_VARIABLE = "REGISTRY_CONFIGURATION_PATH"


def load_config(
    path: str | None, environ: Mapping[str, str], *, strict: bool = False
) -> tuple[Config, list[str]]:
    """The configuration and what is to be warned of.

    It is read from the file `path`, else from that which REGISTRY_CONFIGURATION_PATH names, else
    from nothing but variables and defaults. Raises ConfigError with all that is wrong; `strict`
    counts unknown variables among that.
    """
    path = path or environ.get(PATH_VARIABLE)
    loaded = load(Config, _read(path) if path else None, environ, strict=strict)
    config = with_defaults(loaded.config, loaded.given, environ)
    problems = [*_combinations(config), *_forms(config.http, config), *_not_built(config)]
    if problems:
        raise ConfigError(*problems)
    return config, [*loaded.warnings, *_warnings(config)]


def with_defaults(config: Config, given: frozenset[str], environ: Mapping[str, str]) -> Config:
    """`config` with the defaults of a cluster where it is to run in one, and with a storage driver.

    `given` are the keys that are set already. In a cluster, or with a kubeconfig, rights are on
    unless they are switched off in writing; the other defaults follow.
    """
    in_cluster = bool(environ.get("KUBERNETES_SERVICE_HOST") or config.alauda.kubeconfig)
    if in_cluster and "alauda.auth.mode" not in given:
        auth = replace(config.alauda.auth, mode="kubernetes")
        config = replace(config, alauda=replace(config.alauda, auth=auth))
    if config.has_rights:
        config = _with_rights(config, given)
    root = "/registry" if in_cluster or config.has_rights else "./data"
    return replace(config, storage=_with_driver(config.storage, given, root))
