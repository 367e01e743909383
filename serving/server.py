"""The runner of an HTTP process: uvicorn's server with our protocol, our clock, our way to stop.

Stopping: SIGTERM -> no longer ready -> go on accepting for the drain delay -> stop listening and
close idle connections -> let running requests end within the drain timeout -> cancel the rest ->
exit 0. SIGINT skips the delay and waits only shortly; a second SIGTERM skips the delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import uvicorn
import uvloop
from uvicorn.server import ServerState

from serving.bulk import BulkPool, bulk_threads
from serving.exchange import Application
from serving.listening import BACKLOG
from serving.protocol import HTTPProtocol
from serving.service import ConnectionLimits, Service
from serving.tls import ReloadingContext

INTERRUPTED: Final = 1.0
"""seconds that running requests get after SIGINT"""

CANCELLED: Final = 10.0
"""seconds that cancelled requests get to put their state in order"""

DRAIN_STEP: Final = 0.02
"""seconds between two looks whether all is answered"""

STARTUP_FAILED: Final = 3
"""exit code where the application could not start"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Times are in seconds."""

    sockets: Sequence[socket.socket]
    """listening (serving/listening.py); closed when the server stops"""

    drain_delay: float = 0.0
    """from SIGTERM to the end of listening: as long as clients may still be sent here"""

    drain_timeout: float = 29.0
    """from the end of listening to the cancellation of what still runs"""

    tls: ReloadingContext | None = None
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)


class HTTPServer:
    """Serves one application until it is told to stop."""

    def __init__(
        self,
        application: Application,
        options: ServerOptions,
        *,
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_stopping` is called on the loop, once, before anything is closed."""
        self._server = _Server(application, options, on_stopping)

    def run(self) -> int:
        """Serves in a new event loop; returns the exit code of the process."""
        server = self._server
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(server.serve(list(server.options.sockets)))
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else STARTUP_FAILED
        finally:
            server.service.bulk.close()
        return 0

    def stop(self) -> None:
        """What SIGTERM does. To be called on the loop."""
        self._server.stop()


class _Server(uvicorn.Server):
    """uvicorn's startup and lifespan; signals, ticks and the shutdown are ours."""

    def __init__(
        self, application: Application, options: ServerOptions, on_stopping: Callable[[], None]
    ) -> None:
        state = ServerState()
        self.service = Service(state, options.limits, BulkPool(bulk_threads()))
        tls = options.tls
        super().__init__(
            uvicorn.Config(
                cast(Any, application),
                http=cast(
                    type[asyncio.Protocol], functools.partial(HTTPProtocol, service=self.service)
                ),
                ws="none",
                lifespan="on",
                interface="asgi3",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                workers=1,
                backlog=BACKLOG,
                ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
            )
        )
        self.server_state = state
        self.options = options
        self._on_stopping = on_stopping
        self._leave = asyncio.Event()
        self._interrupted = False

    # Signals.

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Unlike uvicorn's, does not raise the signal again at the end: SIGTERM is a good exit."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)

    def stop(self) -> None:
        if self.service.stopping or not self.options.drain_delay:
            self._leave.set()
        else:
            asyncio.get_running_loop().call_later(self.options.drain_delay, self._leave.set)
        self._begin_stopping()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._leave.set()
        self._begin_stopping()

    def _begin_stopping(self) -> None:
        if not self.service.stopping:
            self.service.stopping = True
            self._on_stopping()

    # What uvicorn calls, in this order.

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._ticker = asyncio.create_task(self._tick())
        try:
            await super().startup(sockets)
        except BaseException:
            self._ticker.cancel()
            raise

    async def main_loop(self) -> None:
        await self._leave.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self.server_state
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(state.connections):
            connection.shutdown()
        await self._drain()
        if state.tasks:
            logger.warning(
                "%d requests were cancelled: the time to drain is over", len(state.tasks)
            )
            for task in list(state.tasks):
                task.cancel()
            await asyncio.wait(list(state.tasks), timeout=CANCELLED)
        for connection in list(state.connections):
            cast(HTTPProtocol, connection).abort()
        await self.lifespan.shutdown()
        self._ticker.cancel()

    async def _drain(self) -> None:
        """Waits until all is answered and sent, or the time is over."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while self.server_state.connections or self.server_state.tasks:
            limit = INTERRUPTED if self._interrupted else self.options.drain_timeout
            if loop.time() - begun >= limit:
                return
            await asyncio.sleep(DRAIN_STEP)

    async def _tick(self) -> None:
        """The clock of all connections: time limits, the `date` header, a changed certificate."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self.on_tick(0)  # uvicorn's: makes the headers of every answer anew
                self.service.now = loop.time()
                self._look()
            except Exception:
                logger.exception("a tick of the server failed")
            await asyncio.sleep(self.options.limits.tick)

    def _look(self) -> None:
        for connection in list(self.server_state.connections):
            cast(HTTPProtocol, connection).look(self.service.now)
        if self.options.tls is not None:
            self.options.tls.refresh()
