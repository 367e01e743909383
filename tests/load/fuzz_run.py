"""One scenario's hold on the server: sends its calls, whole or disturbed, and judges answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from tests.load import fuzz_oracle
from tests.load.fuzz_calls import Call, Ending, Sending, clean
from tests.load.fuzz_disturb import disturbed
from tests.load.fuzz_wire import ANSWER_SECONDS, Answer, BadAnswer, NoAnswer, Peer
from tests.load.fuzz_world import World

DETAIL: Final = 1500
"""bytes of a request that go into a report"""

NAMES: Final = 500
"""scenarios after which names come again, so that lists do not grow for ever"""

GLANCE: Final = 0.03
"""seconds for which answers are awaited that need not come"""

_VARIABLE: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,}|_state=\S+|fuzz/[a-z0-9/_.-]+|\d{4,}"
)
_KIND: Final = re.compile(r"/(blobs/uploads|blobs|manifests|tags|referrers|_catalog)(?:[/?]|$)")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be. `scenario` is its number: with the same seed it can be run again
    alone."""

    scenario: int
    what: str
    detail: str

    @property
    def signature(self) -> str:
        """The same for the same fault in another request."""
        return _VARIABLE.sub("#", self.what)


@dataclass(slots=True)
class Counters:
    """What was done, for the report."""

    requests: int = 0
    disturbed: int = 0
    unanswered: int = 0
    statuses: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`answer` is None where none was owed and none came; `clean`: the call went out as it was
    meant; `garbled`: the server may have taken something else for its body."""

    answer: Answer | None
    clean: bool
    garbled: bool = False

    @property
    def status(self) -> int:
        return self.answer.status if self.answer is not None else 0

    def header(self, name: str) -> str:
        return (self.answer.header(name) or "") if self.answer is not None else ""


class Run:
    """What a scenario is given. Its own randomness, and so its course, follow from seed and
    number."""

    def __init__(
        self,
        port: int,
        world: World,
        rng: Random,
        number: int,
        counters: Counters,
        report: Callable[[Finding], None],
    ) -> None:
        self.world = world
        self.rng = rng
        self.number = number
        self._port = port
        self._counters = counters
        self._report = report
        self._peer: Peer | None = None
        self._step = 0

    def fork(self) -> Run:
        """A second client of the same scenario, on a connection of its own."""
        rng = Random(self.rng.random())
        return Run(self._port, self.world, rng, self.number, self._counters, self._report)

    def new_name(self) -> str:
        """A repository that no other scenario at the same time has."""
        depth = self.rng.choice((1, 2, 2, 2, 3))
        parts = (f"s{self.number % NAMES}", f"r{self.rng.randrange(3)}", "a_b.c--d")
        return "fuzz/" + "/".join(parts[:depth])

    async def call(
        self, call: Call, *, expect: Collection[int] | None = None, wild: float = 0.25
    ) -> Outcome:
        """Sends the call, with the probability `wild` in a disturbed form; a clean one must have a
        status in `expect`, if that is given."""
        self._step += 1
        is_wild = self.rng.random() < wild
        if is_wild:
            sending = disturbed(call, self.rng)
            tagged = None
        else:
            tagged = f"f{self.number}.{self._step}-{self.rng.randrange(1 << 30)}"
            sending = clean(call.with_header("X-Request-Id", tagged), self.rng)
        answers = await self.send(sending)
        first = answers[0] if answers else None
        if first is not None and tagged is not None and fuzz_oracle.is_api(call.target):
            if first.status < 500 and first.header("x-request-id") != tagged:
                self.find(
                    f"{_kind(call.method, call.target)}: the answer to another request",
                    sending,
                    first,
                )
            if expect is not None and first.status not in expect:
                self.find(
                    f"{_kind(call.method, call.target)}: {first.status}, expected {sorted(expect)}",
                    sending,
                    first,
                )
        if call.body and (is_wild or (first is not None and first.status >= 400)):
            self.hang_up()  # too much of an unread body ends the connection without notice
        return Outcome(first, not is_wild, sending.garbled)

    async def send(self, sending: Sending) -> list[Answer]:
        """Sends the bytes and gives the answers, each of them judged."""
        self._counters.requests += max(1, len(sending.known))
        if sending.ending is not Ending.STAY or not sending.strict:
            self._counters.disturbed += 1
        answers: list[Answer] = []
        try:
            await self._exchange(sending, answers)
        except (BadAnswer, NoAnswer) as error:
            self.find(
                f"{_kind(*sending.known[0])}: {error}", sending, answers[-1] if answers else None
            )
            self.hang_up()
        except ConnectionError as error:
            self.find(f"no connection: {error!r}", sending, None)
            self.hang_up()
        if not answers:
            self._counters.unanswered += 1
        return answers

    def find(self, what: str, sending: Sending | None, answer: Answer | None) -> None:
        sent = "" if sending is None else f"sent {len(sending.data)}: {sending.data[:DETAIL]!r}"
        got = (
            "" if answer is None else f"got {answer.status} {answer.headers} {answer.body[:400]!r}"
        )
        more = "" if sending is None else f"{replace(sending, data=b'')}"
        self._report(Finding(self.number, what, f"{sent}\n{got}\n{more}"))

    def hang_up(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    async def _connected(self) -> Peer:
        if self._peer is None:
            peer = Peer(self._port)
            try:
                await peer.open()
            except BaseException:
                peer.close()
                raise
            self._peer = peer
        return self._peer

    async def _exchange(self, sending: Sending, answers: list[Answer]) -> None:
        peer = await self._connected()
        sender = asyncio.create_task(self._deliver(peer, sending))
        try:
            lives = await self._collect(peer, sending, sender, answers)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        if not lives or sending.ending is not Ending.STAY:
            if sending.ending is Ending.RESET:
                peer.reset()
            self.hang_up()

    async def _deliver(self, peer: Peer, sending: Sending) -> None:
        if sending.head:
            await peer.send([sending.data[: sending.head]])
            return  # the rest follows once the server asks for it
        await peer.send(sending.pieces, sending.pause)
        if sending.ending is Ending.HALF_CLOSE:
            peer.half_close()

    async def _collect(
        self, peer: Peer, sending: Sending, sender: asyncio.Task[None], answers: list[Answer]
    ) -> bool:
        """All answers that are owed, and those that come besides; whether the connection lives
        on."""
        patience = ANSWER_SECONDS + 3 * sending.pause * len(sending.cuts)
        for index, (method, target) in enumerate(sending.known[: sending.owed]):
            answer = await self._next(peer, sending, method, patience)
            if answer is None:
                raise NoAnswer(f"the connection ended before answer {index + 1}")
            answers.append(answer)
            self._judge(answer, method, target, sending, strict=sending.strict)
            if answer.closes:
                return await self._end(peer)
        await asyncio.wait({sender}, timeout=patience)
        if sending.ending is Ending.STAY:
            return sender.done()  # an early answer may come before the last bytes are sent
        if sending.ending is Ending.HALF_CLOSE and sender.done():
            await self._rest(peer, sending, answers, patience)
            return False
        if sending.ending is Ending.CLOSE:
            try:
                await self._rest(peer, sending, answers, GLANCE)
            except NoAnswer:
                return False
        return False

    async def _next(
        self, peer: Peer, sending: Sending, method: str, patience: float
    ) -> Answer | None:
        answer = await peer.answer(method, within=patience, interim=bool(sending.head))
        if answer is not None and answer.status == 100:
            await asyncio.wait_for(peer.send([sending.data[sending.head :]]), patience)
            answer = await peer.answer(method, within=patience)
        return answer

    async def _rest(
        self, peer: Peer, sending: Sending, answers: list[Answer], within: float
    ) -> None:
        """What comes until the server ends its side. Raises NoAnswer if that takes too long."""
        while True:
            known = sending.known[len(answers) :]
            method, target = known[0] if known else ("GET", "/")
            answer = await peer.answer(method, within=within)
            if answer is None:
                return
            answers.append(answer)
            self._judge(answer, method, target, sending, strict=sending.strict and bool(known))
            if answer.closes:
                await self._end(peer)
                return

    async def _end(self, peer: Peer) -> bool:
        rest = await peer.ended()
        if rest:
            raise BadAnswer(f"bytes after an answer with connection: close: {rest[:100]!r}")
        return False

    def _judge(
        self, answer: Answer, method: str, target: str, sending: Sending, *, strict: bool
    ) -> None:
        statuses = self._counters.statuses
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        try:
            problems = list(fuzz_oracle.problems(answer, method, target, strict=strict))
        except BadAnswer as error:
            problems = [str(error)]
        if strict and answer.continues and b"xpect:" not in sending.data[:70_000]:
            problems.append("100 Continue was not asked for")
        for problem in problems:
            self.find(f"{_kind(method, target)}: {problem}", sending, answer)


def _kind(method: str, target: str) -> str:
    """A request by its method and what it is about."""
    match = _KIND.search(target)
    return f"{method} {match[1] if match else 'other'}"
