"""The hub inside another Starlette application, for stock uvicorn: `uvicorn tests.support.mounted:app`."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from hub.asgi import create_app
from hub.settings_load import from_mapping
from tests.support import app as hooks

PREFIX = "/realtime"


async def home(_: Request) -> Response:
    """The other application's own page."""
    return PlainTextResponse("another application")


def build() -> Starlette:
    folder = Path(os.environ["MOUNTED_HUB_FOLDER"])
    values = json.loads((folder / "config.json").read_text())
    settings = from_mapping({**values, "data_dir": str(folder / "data")}).settings
    hub = create_app(settings, app=hooks.app)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with hub.router.lifespan_context(hub):
            yield

    return Starlette(routes=[Route("/", home), Mount(PREFIX, app=hub)], lifespan=lifespan)


app = build()
