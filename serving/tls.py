"""TLS for a server whose certificate is renewed under it (cert-manager, Kubernetes secrets).

New connections get the new certificate, old ones go on. A pair that cannot be used is reported once
and the last good one stays.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence

Reloaded = Callable[[Exception | None], None]
"""told after each attempt to load a changed pair: None, or why it was not taken"""


class ReloadingContext:
    """`context` is the one to serve with; `refresh` is to be called every few seconds."""

    def __init__(
        self,
        certificate: str,
        key: str,
        *,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        ciphers: Sequence[str] = (),
        reloaded: Reloaded = lambda error: None,
    ) -> None:
        """`certificate` (with its chain) and `key` are PEM files; `ciphers` OpenSSL's for TLS 1.2.

        Raises OSError (ssl.SSLError is one) where the pair cannot be used.
        """
        self._certificate = certificate
        self._key = key
        self._minimum = minimum
        self._ciphers = ":".join(ciphers)
        self._reloaded = reloaded
        self._seen = self._stamp()
        self.context = self._load()

    def refresh(self) -> bool:
        """Takes the files anew if they have changed; whether there is a new certificate now."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self._load()  # a context that fails half-way is spoiled: never the one that serves
            self.context.load_cert_chain(self._certificate, self._key)
        except OSError as error:
            self._reloaded(error)
            return False
        self._reloaded(None)
        return True

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        if self._ciphers:
            context.set_ciphers(self._ciphers)
        context.set_alpn_protocols(["http/1.1"])
        # A client that closes without close_notify loses nothing: bodies are framed.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_IGNORE_UNEXPECTED_EOF
        context.load_cert_chain(self._certificate, self._key)
        return context

    def _stamp(self) -> tuple[tuple[int, int, int, int] | None, ...]:
        """What tells one version of the files from another, through symbolic links too."""
        return tuple(_stamp(path) for path in (self._certificate, self._key))


def _stamp(path: str) -> tuple[int, int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
