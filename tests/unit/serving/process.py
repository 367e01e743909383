"""A server process for tests of signals: `python -m tests.unit.serving.process WORKERS DELAY
TIMEOUT`.

Prints its port, then what happens to it, a word a line.
"""

from __future__ import annotations

import asyncio
import os
import sys

from serving.body import ClientDisconnected
from serving.listening import listen
from serving.server import HTTPServer, ServerOptions
from serving.workers import run
from tests.unit.serving.loopback import Receive, Scope, Send, answer, body, digest


def say(word: str) -> None:
    os.write(1, word.encode() + b"\n")  # one write: workers share the pipe


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                say("closed")
                return
            say("started")
    match scope["path"]:
        case "/pid":
            await answer(send, b"%d" % os.getpid())
        case "/slow":
            say("slow")
            await asyncio.sleep(float(scope["query_string"]))
            await answer(send, b"slow")
        case "/pump":
            await pump(scope, send)
        case "/digest":
            await digest(scope, receive, send)


async def pump(scope: Scope, send: Send) -> None:
    received = 0

    def sink(piece: memoryview) -> None:
        nonlocal received
        if not received:
            say("pumping")
        received += len(piece)

    try:
        await body(scope).pump(sink)
    except (ClientDisconnected, asyncio.CancelledError) as error:
        say(f"{type(error).__name__}:{received}")
        raise
    await answer(send, b"pumped")


def main() -> int:
    workers, delay, timeout = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    sockets = listen("127.0.0.1:0")
    say(str(sockets[0].getsockname()[1]))
    options = ServerOptions(sockets, drain_delay=delay, drain_timeout=timeout)

    def child(_index: int) -> int:
        return HTTPServer(application, options, on_stopping=lambda: say("stopping")).run()

    return run(workers, sockets, child)


if __name__ == "__main__":
    raise SystemExit(main())
