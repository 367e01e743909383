"""`python -m registry serve | check-config | gc`: the only place that builds objects."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import secrets
import ssl
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from registry.app import Background, create_app
from registry.config import Config, ConfigError, load_config
from registry.gc import add_arguments, main_gc
from registry.manifests import ManifestCache
from registry.metadata import StorageMetadata
from registry.observer import RequestObserver
from registry.purge import UploadPurger
from registry.readonly import NoDeletes, ReadOnly
from registry.repository import Registry
from registry.stored import StoredRegistry
from serving import workers
from serving.health import Health
from serving.listening import listen
from serving.logging import Logs
from serving.metrics import Metrics
from serving.server import HTTPServer, ServerOptions
from serving.tls import ReloadingContext
from storage.driver import StorageDriver
from storage.factory import DriverUnavailable, create_driver
from storage.instrumented import instrument

FIRST_PURGE: Final = 3600.0
"""seconds: the first purge is at a random time within it, so that replicas do not all begin at
once"""

log = logging.getLogger("registry")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code."""
    args = _parser().parse_args(arguments)
    try:
        config, warnings = load_config(
            args.config, os.environ, strict=getattr(args, "strict", False)
        )
    except ConfigError as error:
        for problem in error.problems:
            print(f"configuration: {problem}", file=sys.stderr)
        return 1
    if args.command == "check-config":
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print("the configuration is good")
        return 0
    try:
        if args.command == "gc":
            return asyncio.run(_collect(config, args))
        return _serve(config, warnings)
    except (DriverUnavailable, OSError, ValueError) as error:
        print(f"registry {args.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="registry", description="The image registry.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "serve the registry"),
        ("check-config", "say what is wrong with the configuration"),
        ("gc", "find, and with --confirm delete, what nothing refers to"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.add_argument(
            "--config",
            metavar="FILE",
            help="YAML file (default: REGISTRY_CONFIGURATION_PATH, else variables and defaults)",
        )
        if name == "check-config":
            command.add_argument(
                "--strict", action="store_true", help="unknown REGISTRY_* variables are errors"
            )
        if name == "gc":
            add_arguments(command)
    return parser


def _driver(config: Config) -> StorageDriver:
    kind = config.storage.driver
    driver: StorageDriver = create_driver(kind, asdict(getattr(config.storage, kind)))
    return driver


async def _collect(config: Config, args: argparse.Namespace) -> int:
    driver = _driver(config)
    try:
        return await main_gc(driver, args, sys.stdout)
    finally:
        await driver.close()


def _serve(config: Config, warnings: Sequence[str]) -> int:
    logs = Logs(
        level=config.log.level,
        formatter=config.log.formatter,
        fields=config.log.fields,
        access=not config.log.accesslog.disabled,
        audit=config.alauda.audit.enabled,
    )
    with logs.installed():
        for warning in warnings:
            log.warning("%s", warning)
        secret = config.http.secret or secrets.token_hex(32)
        sockets = listen(config.http.addr)
        with tempfile.TemporaryDirectory(prefix="registry-metrics-") as folder:
            shared = folder if config.http.workers > 1 else None
            process = _Process(config, logs, secret, shared)
            options = ServerOptions(
                sockets,
                drain_delay=config.http.draindelay,
                drain_timeout=config.http.draintimeout,
            )
            return workers.run(
                config.http.workers, sockets, lambda index: process.run(index, options)
            )


class _Process:
    """One serving process; built in the parent, run in each worker."""

    def __init__(self, config: Config, logs: Logs, secret: str, metrics_folder: str | None) -> None:
        self._config = config
        self._logs = logs
        self._secret = secret
        self._metrics_folder = metrics_folder

    def run(self, index: int, options: ServerOptions) -> int:
        config = self._config
        metrics = Metrics(folder=self._metrics_folder)
        driver = instrument(_driver(config), metrics)
        health = Health()
        check = config.health.storagedriver
        if check.enabled:
            health.add(
                "storage",
                lambda: driver.stat("/"),
                interval=check.interval,
                threshold=check.threshold,
            )
        background: list[Background] = [health.run]
        # One process of all that share a storage purges; the first worker stands for its replica.
        if index == 0 and config.storage.maintenance.uploadpurging.enabled:
            background.append(self._purger(driver).run)
        application = create_app(
            config,
            registry=self._registry(driver, metrics),
            health=health,
            metrics=metrics,
            observer=RequestObserver(metrics, self._logs, audit=config.alauda.audit.enabled),
            secret=self._secret,
            background=background,
        )
        server = HTTPServer(
            application,
            ServerOptions(
                options.sockets,
                drain_delay=options.drain_delay,
                drain_timeout=options.drain_timeout,
                tls=self._tls(metrics),
            ),
            on_stopping=health.stop,
        )
        scheme = "https" if config.http.tls.certificate else "http"
        log.info("serving %s on %s", scheme, config.http.addr)
        try:
            return server.run()
        finally:
            asyncio.run(driver.close())
            metrics.close()

    def _registry(self, driver: StorageDriver, metrics: Metrics) -> Registry:
        config = self._config
        registry: Registry = StoredRegistry(
            driver,
            StorageMetadata(driver),
            redirect=not config.storage.redirect.disable,
            sparse_indexes=config.alauda.validation.indexes == "sparse",
            cache=ManifestCache(
                count=lambda kind: metrics.add("digest_cache_requests_total", kind)
            ),
            on_corrupt=lambda digest: metrics.add("storage_corrupt_blobs_total"),
        )
        if config.storage.maintenance.readonly.enabled:
            return ReadOnly(registry)
        return registry if config.storage.delete.enabled else NoDeletes(registry)

    def _purger(self, driver: StorageDriver) -> UploadPurger:
        purging = self._config.storage.maintenance.uploadpurging
        return UploadPurger(
            driver,
            clock=time.time,
            first_delay=random.uniform(0.0, FIRST_PURGE),
            age=purging.age,
            interval=purging.interval,
            dry_run=purging.dryrun,
        )

    def _tls(self, metrics: Metrics) -> ReloadingContext | None:
        tls = self._config.http.tls
        if not tls.certificate:
            return None

        def reloaded(error: Exception | None) -> None:
            if error is None:
                log.info("the certificate was read anew")
            else:
                metrics.add("tls_reload_failures_total")
                log.error("the changed certificate cannot be used, the old one stays: %s", error)

        minimum = ssl.TLSVersion.TLSv1_3 if tls.minversion == "tls1.3" else ssl.TLSVersion.TLSv1_2
        return ReloadingContext(
            tls.certificate,
            tls.key,
            minimum=minimum,
            ciphers=tls.ciphersuites,
            reloaded=reloaded,
        )


if __name__ == "__main__":
    sys.exit(main())
