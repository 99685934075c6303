"""The hub as an ASGI application: its HTTP endpoints, and its WebSocket for when another server holds the connections.

Mounted in another Starlette application, which does not run the lifespan of what is mounted in it:

    hub = create_app(settings)
    app = Starlette(routes=[Mount("/realtime", app=hub)], lifespan=lambda _: hub.router.lifespan_context(hub))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from hub import websocket_asgi
from hub.api.endpoints import Api
from hub.app import App
from hub.compose import Hub
from hub.door import WEBSOCKET_PATH
from hub.metrics import NodeCollector, exposition
from hub.pages import page
from hub.settings import Settings
from hub.settings_checks import require_sound
from hub.settings_load import Loaded


def create_app(settings: Settings, *, app: App | None = None) -> Starlette:
    """A hub that opens with the application's lifespan and closes with it.

    Raises ``SettingsError`` for settings that cannot work together.
    """
    require_sound(Loaded(settings, {}))
    application = Starlette()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        hub = Hub(settings, asyncio.get_running_loop(), app)
        await hub.start()
        application.router.routes += [websocket_route(hub), *endpoints(hub)]
        try:
            yield
        finally:
            application.router.routes.clear()
            await hub.stop()

    application.router.lifespan_context = lifespan
    return application


def application(hub: Hub, *, demo: bool = False) -> Starlette:
    """The HTTP endpoints of a hub that is open already; with ``demo`` the page that receives live."""
    return Starlette(routes=[*endpoints(hub), *([Route("/", page)] if demo else [])])


def websocket_route(hub: Hub) -> WebSocketRoute:
    """The WebSocket over plain ASGI; the hub's own server has its protocol for that and never gets here."""

    async def websocket(socket: WebSocket) -> None:
        await websocket_asgi.serve(hub.door, socket)

    return WebSocketRoute(WEBSOCKET_PATH, websocket)


def endpoints(hub: Hub) -> list[Route]:
    """All HTTP endpoints that the settings allow."""
    settings = hub.settings
    node = hub.node

    async def health(_: Request) -> Response:
        return JSONResponse({})

    async def ready(_: Request) -> Response:
        reasons = node.not_ready()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    collector = NodeCollector(node.metrics, node.gauges, node.counters)

    async def metrics(_: Request) -> Response:
        return Response(exposition(collector), media_type="text/plain; version=0.0.4; charset=utf-8")

    found: list[Route] = []
    if not settings.http_api.disabled:
        api = Api(node)
        found.append(Route("/api", api.legacy, methods=["POST"]))
        found.append(Route("/api/{method}", api.method, methods=["POST"]))
    if settings.health.enabled:
        found += [Route("/health", health), Route("/ready", ready)]
    if settings.prometheus.enabled:
        found.append(Route("/metrics", metrics))
    return found
