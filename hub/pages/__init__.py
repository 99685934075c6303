"""The page of a start without settings: it subscribes and shows what arrives."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_LIVE = Path(__file__).with_name("live.html")


async def page(_: Request) -> Response:
    return HTMLResponse(_LIVE.read_bytes(), headers={"Cache-Control": "no-store"})
