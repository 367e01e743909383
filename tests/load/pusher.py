"""A client that pushes images until its server is killed, and then makes good what was cut off.

Blobs go up in every way that real clients use. What an interrupted upload has on the server is
learnt from its status alone, as a client does that comes back.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from oci.descriptor import OCI_INDEX, OCI_MANIFEST
from oci.digest import Digest
from tests.fakes.images import image, index
from tests.load.ledger import Blob, Image, Ledger
from tests.load.wire import Answer, ServerLost, Violation, Wire

OCTETS: Final = {"Content-Type": "application/octet-stream"}
PIECE: Final = 48 * 1024
"""bytes of a chunk in chunked transfer encoding"""

KILL_NOTICE: Final = 2.0
"""seconds after a lost connection within which its server is known to have been killed"""


@dataclass(slots=True)
class OpenUpload:
    """What the client knows of an upload: between `acknowledged` and `sent` bytes are there.
    `closing`: the request that makes a blob of it is on its way."""

    name: str
    blob: Blob
    location: str
    acknowledged: int = 0
    sent: int = 0
    closing: bool = False

    @property
    def path(self) -> str:
        """Where its status is, for a client that has lost the state."""
        return urlsplit(self.location).path


@dataclass(frozen=True, slots=True)
class Job:
    """One image for one repository, and the tag (None: pushed by digest)."""

    name: str
    image: Image
    tag: str | None


@dataclass(slots=True)
class Counts:
    interrupted: int = 0
    continued: int = 0
    vanished: int = 0
    """uploads that were committed without an answer"""
    mounted: int = 0
    uploaded: int = 0


class Shop:
    """What there is to push: blobs that many images share, and repositories. It changes between the
    rounds."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.blobs = [self.new_blob(dice) for _ in range(48)]
        self.names = ["crash/a", "crash/a/b", "crash/c", "crash-d"]

    def new_blob(self, dice: random.Random) -> Blob:
        """One in ten is large; one in sixty is empty."""
        kind = dice.random()
        if kind < 0.1:
            size = dice.randrange(1024 * 1024, 4 * 1024 * 1024)
        elif kind < 0.35:
            size = dice.randrange(64 * 1024, 512 * 1024)
        else:
            size = dice.randrange(1, 64 * 1024) if kind < 0.98 else 0
        return Blob.make(dice.randrange(1 << 48), size)

    def turn_over(self, number: int) -> None:
        """A quarter of the blobs and one of the repositories are new in each round."""
        for at in self._dice.sample(range(len(self.blobs)), len(self.blobs) // 4):
            self.blobs[at] = self.new_blob(self._dice)
        self.names[-1] = f"crash/r{number}/deep/er"


class Pusher:
    """One client. `run` and `repair` are called in turn, each from one thread."""

    def __init__(self, shop: Shop, ledger: Ledger, seed: int) -> None:
        self.counts = Counts()
        self._shop = shop
        self._ledger = ledger
        self._dice = random.Random(seed)
        self._job: Job | None = None
        self._upload: OpenUpload | None = None

    def run(self, port: int, killed: threading.Event) -> None:
        """Pushes until the server is lost. Raises Violation, also for a server that is lost without
        being killed."""
        try:
            with Wire(port) as wire:
                while not killed.is_set():
                    self._job = self._new_job()
                    self._push(wire, self._job)
                    self._job = None
        except ServerLost as error:
            if not killed.wait(KILL_NOTICE):
                raise Violation(f"a live server was lost: {error}") from error
            self.counts.interrupted += 1

    def repair(self, port: int) -> None:
        """Goes on with the upload that was cut off, then repeats the push. Raises Violation."""
        with Wire(port) as wire:
            if self._upload is not None:
                self._continue(wire, self._upload)
                self._upload = None
            if self._job is not None:
                self._push(wire, self._job)
                self._job = None

    def _new_job(self) -> Job:
        dice = self._dice
        name = dice.choice(self._shop.names)
        tag = dice.choice(["latest", "stable", f"v{dice.randrange(1 << 32):x}", None])
        if dice.random() < 0.15:
            children = tuple(self._new_image(name) for _ in range(2))
            content = index(*(child.content for child in children))
            return Job(name, Image(content, OCI_INDEX, Digest.of(content), children=children), tag)
        return Job(name, self._new_image(name, can_refer=tag is None), tag)

    def _new_image(self, name: str, *, can_refer: bool = False) -> Image:
        dice = self._dice
        blobs = dice.sample(self._shop.blobs, dice.randrange(1, 5))
        blobs += [self._shop.new_blob(dice) for _ in range(dice.randrange(3))]
        config, *layers = blobs
        subject = self._ledger.some_image(name, dice) if can_refer else None
        more = {} if subject is None else {"subject": _descriptor_of(subject)}
        content = image(
            *(layer.content() for layer in layers),
            config=config.content(),
            annotations={"salt": f"{dice.randrange(1 << 48):x}"},
            **more,
        )
        return Image(content, OCI_MANIFEST, Digest.of(content), tuple(blobs), subject=subject)

    def _push(self, wire: Wire, job: Job) -> None:
        for child in job.image.children:
            self._push_image(wire, job.name, child, None)
        self._push_image(wire, job.name, job.image, job.tag)

    def _push_image(self, wire: Wire, name: str, image: Image, tag: str | None) -> None:
        for blob in image.blobs:
            self._push_blob(wire, name, blob)
        write = None if tag is None else self._ledger.begin_tag(name, tag, image.digest)
        answer = wire.expect(
            201,
            "PUT",
            f"/v2/{name}/manifests/{tag or image.digest}",
            image.content,
            {"Content-Type": image.media_type},
        )
        if answer.headers.get("docker-content-digest") != image.digest:
            raise Violation(f"PUT of manifest {image.digest} answers {answer.headers}")
        self._ledger.acknowledge(name, image, tag, write)

    def _push_blob(self, wire: Wire, name: str, blob: Blob) -> None:
        dice = self._dice
        if dice.random() < 0.5:
            known = self._ledger.has_blob(name, blob.digest)
            answer = wire.expect((200, 404), "HEAD", f"/v2/{name}/blobs/{blob.digest}")
            if answer.status == 200:
                return
            if known:
                raise Violation(f"{name} had the blob {blob.digest}, and has lost it")
        sources = self._ledger.sources(blob.digest)
        if sources and dice.random() < 0.5:
            self._mount(wire, name, blob, dice.choice(sources))
            return
        ways = (self._patch_chunked, self._put_whole, self._post_whole, self._patch_in_parts)
        dice.choice(ways)(wire, name, blob)
        self.counts.uploaded += 1

    def _mount(self, wire: Wire, name: str, blob: Blob, source: str) -> None:
        query = f"mount={blob.digest}&from={source}"
        wire.expect(201, "POST", f"/v2/{name}/blobs/uploads/?{query}")
        self.counts.mounted += 1

    def _post_whole(self, wire: Wire, name: str, blob: Blob) -> None:
        path = f"/v2/{name}/blobs/uploads/?digest={blob.digest}"
        wire.expect(201, "POST", path, self._body(blob.content()), OCTETS)

    def _put_whole(self, wire: Wire, name: str, blob: Blob) -> None:
        upload = self._begin(wire, name, blob)
        self._close(wire, upload, blob.content())

    def _patch_chunked(self, wire: Wire, name: str, blob: Blob) -> None:
        upload = self._begin(wire, name, blob)
        self._patch(wire, upload, 0, blob.size, pieces=True)
        self._close(wire, upload, b"")

    def _patch_in_parts(self, wire: Wire, name: str, blob: Blob) -> None:
        upload = self._begin(wire, name, blob)
        cuts = sorted(self._dice.randrange(blob.size + 1) for _ in range(self._dice.randrange(4)))
        for start, end in zip([0, *cuts], cuts, strict=False):
            if end > start:
                self._patch(wire, upload, start, end, pieces=self._dice.random() < 0.3)
        self._close(wire, upload, blob.content()[upload.acknowledged :])

    def _begin(self, wire: Wire, name: str, blob: Blob) -> OpenUpload:
        answer = wire.expect(202, "POST", f"/v2/{name}/blobs/uploads/")
        self._upload = OpenUpload(name, blob, answer.headers["location"])
        return self._upload

    def _patch(self, wire: Wire, upload: OpenUpload, start: int, end: int, *, pieces: bool) -> None:
        upload.sent = end
        content = upload.blob.content()[start:end]
        headers = OCTETS if pieces else {**OCTETS, "Content-Range": f"{start}-{end - 1}"}
        body = _in_pieces(content) if pieces else content
        answer = wire.expect(202, "PATCH", upload.location, body, headers)
        if _size(answer) != end and end > 1:
            raise Violation(f"PATCH up to byte {end} answers Range {answer.headers['range']}")
        upload.acknowledged = end
        upload.location = answer.headers["location"]

    def _close(self, wire: Wire, upload: OpenUpload, rest: bytes) -> None:
        upload.sent = upload.blob.size
        upload.closing = True
        url = f"{upload.location}&digest={upload.blob.digest}"
        answer = wire.expect(201, "PUT", url, self._body(rest) if rest else b"", OCTETS)
        if answer.headers.get("docker-content-digest") != upload.blob.digest:
            raise Violation(f"PUT of blob {upload.blob.digest} answers {answer.headers}")
        self._upload = None

    def _continue(self, wire: Wire, upload: OpenUpload) -> None:
        """From what GET says of the upload to a finished blob."""
        answer = wire.expect((204, 404), "GET", upload.path)
        blob = upload.blob
        if answer.status == 404:
            # Only a commit ends an upload, and it does so after the blob is there.
            if not upload.closing:
                raise Violation(f"{upload.path} is gone with {upload.acknowledged} bytes")
            wire.expect(200, "HEAD", f"/v2/{upload.name}/blobs/{blob.digest}")
            self.counts.vanished += 1
            return
        size = _size(answer)
        # Killed between the blob's rename and the upload's end, it stands at its beginning again.
        is_committed = upload.closing and size == 0
        if not (upload.acknowledged <= size <= upload.sent or is_committed):
            raise Violation(
                f"{upload.path} stands at {size}: {upload.acknowledged} bytes were acknowledged,"
                f" {upload.sent} sent"
            )
        upload.location = answer.headers["location"]
        upload.acknowledged = size
        if size < blob.size and self._dice.random() < 0.5:
            middle = self._dice.randrange(size + 1, blob.size + 1)
            self._patch(wire, upload, size, middle, pieces=self._dice.random() < 0.5)
        self._close(wire, upload, blob.content()[upload.acknowledged :])
        self.counts.continued += 1

    def _body(self, content: bytes) -> bytes | Iterator[bytes]:
        return _in_pieces(content) if self._dice.random() < 0.3 else content


def _in_pieces(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), PIECE):
        yield content[at : at + PIECE]


def _size(answer: Answer) -> int:
    """The size that a Range header tells; `0-0` is taken as an upload without bytes."""
    last = int(answer.headers["range"].rpartition("-")[2])
    return last + 1 if last else 0


def _descriptor_of(digest: Digest) -> dict[str, object]:
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 2}
