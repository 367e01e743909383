"""A running registry under load: what every workload is given."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from bench.clients import Client
from bench.content import GIB, MIB, Content, Image, digest_of, small_image
from bench.peers import Peer
from bench.seeding import lay_images, push_blob, push_image, push_images

NAMESPACE: Final = "bench"
TAGS: Final = f"{NAMESPACE}/tags"


class WorkloadFailed(Exception):
    """The registry answered, but not with what the workload asked for."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is moved. `big` and `mid` in bytes, `seconds` of each rate."""

    big: int
    mid: int
    seconds: int
    connections: tuple[int, ...]
    tags: int
    repositories: int
    orphans: int


FULL: Final = Sizes(GIB, 100 * MIB, 5, (1, 16, 64), 10_000, 2_000, 20_000)
QUICK: Final = Sizes(8 * MIB, 2 * MIB, 1, (1, 16), 200, 40, 200)


class Subject:
    """One registry and what has been put there for the workloads."""

    def __init__(self, peer: Peer, sizes: Sizes) -> None:
        self.peer: Final = peer
        self.sizes: Final = sizes
        self._run: Final = f"{time.time_ns():x}"
        self._count = 0
        self._blobs: dict[int, str] = {}
        self._image: Image | None = None

    def fresh(self) -> str:
        """A word that no run has used: salts and names made of it are new to every registry."""
        self._count += 1
        return f"{self._run}x{self._count}"

    def client(self) -> Client:
        return Client(self.peer.target)

    def image(self) -> tuple[str, str]:
        """Repository and manifest digest of the small image tagged v1, pushed at the first call."""
        repository = f"{NAMESPACE}/image"
        if self._image is None:
            image = small_image("seed")
            with self.client() as client:
                push_image(client, repository, "v1", image)
            self._image = image
        return repository, digest_of(self._image.manifest)

    def blob(self, size: int) -> str:
        """The path of a blob of `size` bytes, pushed at the first call and checked when it is read
        back.
        """
        if size not in self._blobs:
            repository = f"{NAMESPACE}/blobs"
            with self.client() as client:
                path = (
                    f"/v2/{repository}/blobs/{push_blob(client, repository, Content(size, 'seed'))}"
                )
                if client.digest(path) != path.rpartition("/")[2]:
                    raise WorkloadFailed(f"GET {path}: wrong content")
            self._blobs[size] = path
        return self._blobs[size]

    @contextlib.contextmanager
    def clients(self, count: int) -> Iterator[list[Client]]:
        """`count` clients with open connections."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self.client()) for _ in range(count)]
            for client in clients:
                client.open()
            yield clients

    @contextlib.contextmanager
    def another(self, *, tls: bool = True) -> Iterator[Peer]:
        """A registry of the same kind on an empty folder, not started yet; the folder goes at the
        end.
        """
        folder = tempfile.mkdtemp(
            prefix=f"{self.peer.name}-", dir=os.path.dirname(self.peer.place.root)
        )
        try:
            certificate = self.peer.place.certificate if tls else None
            yield Peer(self.peer.recipe, f"{folder}/root", certificate)
        finally:
            shutil.rmtree(folder)


def at_once(clients: list[Client], action: Callable[[Client, int], None]) -> None:
    """Calls `action(client, index)` in a thread for each client. The first failure ends the others
    and is raised.
    """
    with ThreadPoolExecutor(len(clients)) as pool:
        running = [pool.submit(action, client, index) for index, client in enumerate(clients)]
        try:
            for future in running:
                future.result()
        except BaseException:
            for client in clients:
                client.abort()
            raise


def tag_names(count: int) -> Iterator[tuple[str, str]]:
    return ((TAGS, f"v{number:05d}") for number in range(count))


def repository_names(count: int) -> Iterator[tuple[str, str]]:
    return ((f"catalog{number // 100:03d}/r{number:05d}", "latest") for number in range(count))


def fill(peer: Peer, sizes: Sizes, *, tags: bool, repositories: bool) -> None:
    """What the listings read. With a shared layout before the registry starts, else over HTTP while
    it runs.
    """
    for wanted, names, image in (
        (tags, tag_names(sizes.tags), small_image("tags")),
        (repositories, repository_names(sizes.repositories), small_image("catalog")),
    ):
        if wanted and peer.recipe.shared_layout:
            lay_images(peer.place.root, names, image)
        elif wanted:
            push_images(peer.target, names, image)
