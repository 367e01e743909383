"""What serving/ relies on of uvicorn, which promises none of it: look here first when its version
is raised.
"""

from __future__ import annotations

import asyncio
import inspect
from importlib.metadata import version
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tests.unit.serving.loopback import Receive, Scope, Send


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


class Recorded(asyncio.Protocol):
    arguments: dict[str, Any]
    made: list[Recorded]

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def test_the_version_is_the_one_that_was_looked_at() -> None:
    assert version("uvicorn") == "0.54.0"


async def test_the_protocol_is_any_callable_and_gets_these_arguments() -> None:
    made: list[Recorded] = []
    Recorded.made = made

    def factory(**arguments: Any) -> Recorded:
        return Recorded(**arguments)

    config = uvicorn.Config(
        application,
        port=0,
        http=factory,  # type: ignore[arg-type]  # a partial is what we give
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    server = Server(config)
    state = server.server_state = ServerState()
    await server.serve()
    assert server.calls == ["startup", "main_loop", "shutdown"]
    assert set(made[0].arguments) == {"config", "server_state", "app_state", "_loop"}
    assert made[0].arguments["config"] is config
    assert made[0].arguments["server_state"] is state
    assert made[0].arguments["app_state"] == {}
    assert config.loaded_app is application


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.calls: list[str] = []

    async def startup(self, sockets: Any = None) -> None:
        self.calls.append("startup")
        await super().startup(sockets)

    async def main_loop(self) -> None:
        self.calls.append("main_loop")
        before = self.server_state.default_headers
        await self.on_tick(0)
        assert self.server_state.default_headers is not before, "a new list tells that it changed"
        assert [name for name, _ in self.server_state.default_headers] == [b"date"]
        [listener] = self.servers
        _, port = listener.sockets[0].getsockname()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()

    async def shutdown(self, sockets: Any = None) -> None:
        self.calls.append("shutdown")
        for listener in self.servers:
            listener.close()
        await self.lifespan.shutdown()


def test_a_protocol_needs_what_uvicorns_own_has() -> None:
    parameters = inspect.signature(HttpToolsProtocol).parameters
    assert list(parameters) == ["config", "server_state", "app_state", "_loop"]
    assert callable(HttpToolsProtocol.shutdown)


def test_the_state_has_what_connections_and_the_drain_use() -> None:
    state = ServerState()
    assert state.connections == set()
    assert state.tasks == set()
    assert state.default_headers == []
    assert state.total_requests == 0


def test_signals_are_taken_in_a_method_of_its_own() -> None:
    source = inspect.getsource(uvicorn.Server.serve)
    assert "with self.capture_signals():" in source


def test_a_context_factory_is_asked_for_the_tls_context() -> None:
    source = inspect.getsource(uvicorn.Config.load)
    assert "self.ssl_context_factory(self, default_factory)" in source
    assert "ssl=config.ssl" in inspect.getsource(uvicorn.Server.startup)
