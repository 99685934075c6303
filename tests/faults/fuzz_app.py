"""The application of the fuzzed hub: `--app tests.faults.fuzz_app:app`."""

from __future__ import annotations

from hub.app import App, ClientContext, MessageEvent

app = App()


@app.rpc("echo")
async def echo(context: ClientContext, data: bytes) -> bytes:
    """The bytes that came."""
    return data or b"null"


@app.on_message
async def message(event: MessageEvent) -> None:
    """Takes what is sent."""
