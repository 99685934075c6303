"""The page of a start without settings: it subscribes and shows what arrives.

It is one file that loads nothing, and its response allows nothing else: of scripts and styles only those in the file (by
their hashes), of connections only those to the hub itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_LIVE = Path(__file__).with_name("live.html")


def content_security_policy(html: str) -> str:
    """The strictest policy under which the inline script and style of ``html`` still run."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(html, 'script')}",
            f"style-src {_hashes(html, 'style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


async def page(_: Request) -> Response:
    html = _LIVE.read_text("utf-8")
    return HTMLResponse(
        html,
        headers={
            "Cache-Control": "no-store",
            "Content-Security-Policy": content_security_policy(html),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )


def _hashes(html: str, tag: str) -> str:
    """The sources of all inline elements of a kind, as a policy names them."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
