"""The running server: uvicorn with the hub's own protocols, one line when it is ready, and a drain when it is to leave."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
import uvloop

from auth.errors import BadSetting
from hub import codes, http, websocket
from hub.app import AppNotLoaded
from hub.asgi import application
from hub.compose import Hub
from hub.first_run import FirstRun
from hub.settings import Settings
from hub.tls import server_context
from storage.errors import StoreError

logger = logging.getLogger("hub")

BACKLOG = 2048
"""Connections that the kernel holds until they are accepted."""
BATCH_TICK = 0.1
"""Seconds between batches of a drain."""
TLS_CLOSE = 2.0
"""Seconds that a peer has to answer the end of TLS."""
DRAIN_TICK = 0.02
"""Seconds between looks at whether everybody has gone."""
LEAST_BATCH = 100
"""Sessions closed per batch even if the window would allow fewer."""


def run(settings: Settings, first_run: FirstRun | None) -> int:
    """Serve until a signal; returns the exit code."""
    _allow_many_files()
    try:
        listener = bind(settings.http_server.address, settings.http_server.port)
    except OSError as error:
        where = f"{settings.http_server.address}:{settings.http_server.port}"
        complain(
            f"Cannot listen on {where}: {error.strerror or error};"
            " choose another address or port with --host and --port."
        )
        return 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, listener:
        try:
            return runner.run(_serve(settings, first_run, listener))
        except (StoreError, AppNotLoaded, BadSetting) as error:
            complain(str(error))
            return 1 if isinstance(error, StoreError) else 2


def _allow_many_files() -> None:
    """Every connection is a file: use all that the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def complain(sentence: str) -> None:
    sys.stderr.write(f"hub: {sentence}\n")


def bind(address: str, port: int) -> socket.socket:
    """A socket that is bound but does not listen yet; raises ``OSError``."""
    info = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = info[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(where)
    except OSError:
        listener.close()
        raise
    return listener


async def _serve(settings: Settings, first_run: FirstRun | None, listener: socket.socket) -> int:
    # What uvicorn tells about itself is said in the hub's own words below; its complaints stay.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    hub = Hub(settings, asyncio.get_running_loop())
    await hub.start()
    config = uvicorn.Config(
        application(hub, demo=first_run is not None and first_run.demo),
        http=http.protocol_class(hub.door),
        ws=websocket.protocol_class(hub.door),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_per_message_deflate=False,
        backlog=BACKLOG,
        ws_max_size=settings.websocket.message_size_limit,
    )
    config.load()
    context = server_context(settings.http_server.tls)
    if context is not None:
        config.ssl = context
    scheme = "https" if context is not None else "http"
    host, port = listener.getsockname()[:2]
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def announce() -> None:
        for sentence in first_run.warnings if first_run is not None else ():
            logger.warning("%s", sentence)
        logger.info("Hub %s is ready to serve at %s (node %s)", hub.node.version, url, hub.node.id)
        for line in first_run.lines(settings, url) if first_run is not None else ():
            sys.stdout.write(line + "\n")
        sys.stdout.flush()

    server = HubServer(config, hub, announce)
    try:
        await server.serve(sockets=[listener])
    finally:
        await hub.stop(max(server.leave_by - asyncio.get_running_loop().time(), 1.0))
    logger.info("Hub has stopped")
    return 0


class HubServer(uvicorn.Server):
    """uvicorn's server, but it says when it is ready, and drains before it shuts down."""

    def __init__(self, config: uvicorn.Config, hub: Hub, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._hub = hub
        self._announce = announce
        self.leave_by = 0.0
        """When a drain has to be over but for closing the store, in the loop's time."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with a bound on the TLS handshake."""
        config = self.config
        await self.lifespan.startup()
        timeout = self._hub.settings.websocket.handshake_timeout.total_seconds()
        self.servers = [
            await asyncio.get_running_loop().create_server(
                self._protocol,
                sock=each,
                ssl=config.ssl,
                ssl_handshake_timeout=timeout if config.ssl is not None else None,
                ssl_shutdown_timeout=TLS_CLOSE if config.ssl is not None else None,
                backlog=config.backlog,
            )
            for each in sockets or ()
        ]
        self.started = True
        self._announce()

    def _protocol(self) -> asyncio.Protocol:
        factory: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = factory(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: leave at once."""
        if self.should_exit:
            logger.warning("second signal: leaving at once")
            os._exit(1)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        settings = self._hub.settings.drain
        loop = asyncio.get_running_loop()
        self.leave_by = loop.time() + (settings.timeout - self._hub.close_timeout).total_seconds()
        try:
            async with asyncio.timeout_at(self.leave_by):
                await drain(self._hub, settings.window.total_seconds())
                # Peers answer the close frame; those that do not are dropped by their transports.
                while any(isinstance(each, websocket.HubWebSocket) for each in self.server_state.connections):  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_TICK)
        except TimeoutError:
            logger.warning("drain.timeout has passed; closing what is still open")
            for each in tuple(self.server_state.connections):
                if isinstance(each, websocket.HubWebSocket):
                    each.abort()
        # uvicorn waits that long for connections to be closed by their peers and for requests to be answered.
        self.config.timeout_graceful_shutdown = max(self.leave_by - loop.time(), 0.1)  # type: ignore[assignment]
        await super().shutdown(sockets)


async def drain(hub: Hub, window: float) -> None:
    """Close all sessions with 3001, in batches spread over ``window`` seconds, and let accepted work finish."""
    node = hub.node
    node.draining = True
    sessions = [*node.sessions.values(), *node.pending]
    logger.info("draining %d connections", len(sessions))
    batch = max(LEAST_BATCH, int(len(sessions) * BATCH_TICK / window) + 1 if window else len(sessions))
    for start in range(0, len(sessions), batch):
        for session in sessions[start : start + batch]:
            session.close(codes.SHUTDOWN)
        if start + batch < len(sessions):
            await asyncio.sleep(BATCH_TICK)
