"""Digests, and hashing that can be interrupted and taken up again in another process.

hashlib cannot give out its state; OpenSSL's SHA256_* and SHA512_* calls work on a plain struct, at
the same speed. The state is written in the form of Go's crypto/sha256 and crypto/sha512, so that
uploads begun by the CNCF registry go on here, and the other way round. Where the calls are not to
be had, `state()` is None and the caller has to read the bytes again.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final, Protocol

from oci.errors import DigestInvalid

Chunk = bytes | bytearray | memoryview

SHA256: Final = "sha256"
SHA512: Final = "sha512"
ALGORITHMS: Final = (SHA256, SHA512)
HEX_LENGTH: Final = {SHA256: 64, SHA512: 128}

_GRAMMAR: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Digest(str):
    """`<algorithm>:<hex>`, checked when it was made (OCI image-spec, descriptor.md, "Digests").

    A string of its own kind, so that it can key a dictionary and be written out without conversion.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest that `text` spells. Raises DigestInvalid for any other algorithm, length or
        letter case."""
        if _GRAMMAR.fullmatch(text) is None:
            raise DigestInvalid(
                "a digest is sha256:<64 hex digits> or sha512:<128 hex digits>", text[:200]
            )
        return cls(text)

    @classmethod
    def of(cls, content: Chunk, algorithm: str = SHA256) -> Digest:
        """The digest of `content`."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self[:6]

    @property
    def hex(self) -> str:
        return self[7:]


class Hasher(Protocol):
    """A running hash over a byte stream. Not for two threads at once; `update` releases the
    interpreter lock."""

    algorithm: str
    count: int
    """bytes hashed so far"""

    def update(self, chunk: Chunk, /) -> None: ...

    def digest(self) -> Digest:
        """The digest of all bytes so far; hashing may go on afterwards."""
        ...

    def state(self) -> bytes | None:
        """The state in Go's form (108 bytes for sha256, 204 for sha512), or None where it cannot be
        saved."""
        ...


@dataclass(frozen=True, slots=True)
class _Form:
    """How one algorithm's struct and saved state are laid out."""

    prefix: str
    magic: bytes
    word: str
    block: int
    context_size: int

    @property
    def state_size(self) -> int:
        return 4 + 8 * struct.calcsize(self.word) + self.block + 8


_FORMS: Final = {
    SHA256: _Form("SHA256", b"sha\x03", "I", 64, 112),
    SHA512: _Form("SHA512", b"sha\x07", "Q", 128, 216),
}


def _library() -> ctypes.CDLL | None:
    """The OpenSSL that this interpreter itself uses, or None."""
    try:
        import _hashlib  # the extension module is linked against it
    except ImportError:
        return None
    path: str | None = getattr(_hashlib, "__file__", None)
    if path is None:
        return None
    try:
        library = ctypes.CDLL(path)
        for form in _FORMS.values():
            for call, arguments in (
                ("Init", [ctypes.c_void_p]),
                ("Update", [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]),
                ("Final", [ctypes.c_void_p, ctypes.c_void_p]),
            ):
                function = getattr(library, f"{form.prefix}_{call}")
                function.argtypes = arguments
                function.restype = ctypes.c_int
    except (OSError, AttributeError):
        return None
    return library


_LIBRARY = _library()


class _OpenSSLHasher:
    """OpenSSL's struct: eight state words, the bit count (two words), the block, fill level and
    digest length."""

    __slots__ = ("_context", "_final", "_form", "_update", "algorithm", "count")

    def __init__(self, algorithm: str) -> None:
        assert _LIBRARY is not None
        self.algorithm = algorithm
        self.count = 0
        self._form = _FORMS[algorithm]
        self._context = ctypes.create_string_buffer(self._form.context_size)
        self._update = getattr(_LIBRARY, f"{self._form.prefix}_Update")
        self._final = getattr(_LIBRARY, f"{self._form.prefix}_Final")
        getattr(_LIBRARY, f"{self._form.prefix}_Init")(self._context)

    def update(self, chunk: Chunk, /) -> None:
        size = len(chunk)
        if not size:
            return
        if isinstance(chunk, memoryview) and chunk.readonly:
            chunk = bytes(chunk)
        if isinstance(chunk, bytes):
            self._update(self._context, chunk, size)
        else:
            self._update(self._context, (ctypes.c_char * size).from_buffer(chunk), size)
        self.count += size

    def digest(self) -> Digest:
        copy = ctypes.create_string_buffer(self._context.raw, self._form.context_size)
        out = ctypes.create_string_buffer(HEX_LENGTH[self.algorithm] // 2)
        self._final(out, copy)
        return Digest(f"{self.algorithm}:{out.raw.hex()}")

    def state(self) -> bytes:
        form = self._form
        raw = self._context.raw
        width = struct.calcsize(form.word)
        words = struct.unpack_from(f"=8{form.word}", raw)
        fill = self.count % form.block
        block = raw[10 * width : 10 * width + fill].ljust(form.block, b"\0")
        return (
            form.magic
            + struct.pack(f">8{form.word}", *words)
            + block
            + struct.pack(">Q", self.count)
        )

    def restore(self, state: bytes) -> None:
        form = self._form
        width = struct.calcsize(form.word)
        words = struct.unpack_from(f">8{form.word}", state, 4)
        block = state[4 + 8 * width : 4 + 8 * width + form.block]
        (self.count,) = struct.unpack_from(">Q", state, 4 + 8 * width + form.block)
        bits = self.count * 8
        mask = (1 << 8 * width) - 1
        raw = struct.pack(f"=8{form.word}", *words)
        raw += struct.pack(f"=2{form.word}", bits & mask, bits >> 8 * width & mask)
        raw += block
        raw += struct.pack("=2I", self.count % form.block, HEX_LENGTH[self.algorithm] // 2)
        ctypes.memmove(self._context, raw, form.context_size)


class _HashlibHasher:
    """The plain way: as fast, but its state cannot be saved."""

    __slots__ = ("_hash", "algorithm", "count")

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.count = 0
        self._hash = hashlib.new(algorithm)

    def update(self, chunk: Chunk, /) -> None:
        self._hash.update(chunk)
        self.count += len(chunk)

    def digest(self) -> Digest:
        return Digest(f"{self.algorithm}:{self._hash.hexdigest()}")

    def state(self) -> None:
        return None


def _is_resumable() -> bool:
    """True when the struct is laid out as we think: a hash cut in two must come out right, in both
    algorithms."""
    if _LIBRARY is None:
        return False
    text = bytes(range(256)) * 3
    for algorithm in ALGORITHMS:
        first = _OpenSSLHasher(algorithm)
        first.update(text[:401])
        second = _OpenSSLHasher(algorithm)
        second.restore(first.state())
        second.update(text[401:])
        if second.digest() != Digest.of(text, algorithm):
            return False
    return True


RESUMABLE: Final = _is_resumable()


def new_hasher(algorithm: str = SHA256) -> Hasher:
    """A hasher at offset 0. Raises DigestInvalid for an algorithm other than sha256 and sha512."""
    if algorithm not in _FORMS:
        raise DigestInvalid("the digest algorithm must be sha256 or sha512", algorithm[:64])
    return _OpenSSLHasher(algorithm) if RESUMABLE else _HashlibHasher(algorithm)


def resume_hasher(algorithm: str, state: bytes, offset: int) -> Hasher | None:
    """The hasher that `state` was saved from, or None unless it is a whole state of `offset`
    bytes."""
    form = _FORMS[algorithm]
    if not RESUMABLE or len(state) != form.state_size or not state.startswith(form.magic):
        return None
    hasher = _OpenSSLHasher(algorithm)
    hasher.restore(state)
    return hasher if hasher.count == offset else None
