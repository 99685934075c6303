"""The application that acceptance tests load into the hub with `--app tests.support.app:app`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hub.app import (
    App,
    ClientContext,
    ConnectEvent,
    ConnectReply,
    DisconnectClient,
    DisconnectEvent,
    MessageEvent,
    PublishEvent,
    PublishReply,
    Refuse,
    SubscribeEvent,
    SubscribeReply,
)

app = App()
messages: dict[str, list[Any]] = {}
disconnects: dict[str, list[dict[str, Any]]] = {}


@app.rpc("echo")
async def echo(context: ClientContext, data: bytes) -> bytes:
    """The bytes that came, untouched."""
    return data


@app.rpc("whoami")
async def whoami(context: ClientContext, data: bytes) -> dict[str, Any]:
    """Who asks, as an object that the hub encodes."""
    info = json.loads(context.info) if context.info else None
    meta = json.loads(context.meta) if context.meta else None
    return {"client": context.client, "user": context.user, "info": info, "meta": meta}


@app.rpc("announce")
async def announce(context: ClientContext, data: bytes) -> dict[str, Any]:
    """Publishes for the client, then sends it a message of its own."""
    asked = json.loads(data)
    offset, epoch = await app.publish(asked["channel"], {"from": context.user}, tags={"kind": "announcement"})
    sent = app.send(context.client, {"published": offset})
    nobody = app.send("no such client", b"1")
    return {"offset": offset, "epoch": epoch, "sent": sent, "nobody": nobody}


@app.rpc("refuse")
async def refuse(context: ClientContext, data: bytes) -> None:
    """Always answers with an error of the application's own."""
    raise Refuse(1042, "not today", temporary=True)


@app.rpc("crash")
async def crash(context: ClientContext, data: bytes) -> None:
    """Fails as broken code does."""
    raise RuntimeError("a bug in the application")


@app.rpc("kick")
async def kick(context: ClientContext, data: bytes) -> None:
    """Closes the connection that asks."""
    raise DisconnectClient(4501, "kicked by the application")


@app.rpc("sleep")
async def sleep(context: ClientContext, data: bytes) -> dict[str, Any]:
    """Answers after the number of seconds that it is given."""
    await asyncio.sleep(float(json.loads(data)))
    return {"slept": True}


@app.rpc("seen")
async def seen(context: ClientContext, data: bytes) -> dict[str, Any]:
    """What `send` and `on_disconnect` brought for the user that is named."""
    user = json.loads(data)
    return {"messages": messages.get(user, []), "disconnects": disconnects.get(user, [])}


@app.api("double")
async def double(data: bytes) -> dict[str, Any]:
    """A method of the server API."""
    return {"doubled": 2 * json.loads(data)["n"]}


@app.on_connect
async def connect(event: ConnectEvent) -> ConnectReply | None:
    """Does as the connect data asks: `user`, `refuse`, `disconnect`, `info`, `channels`, `expire_at`."""
    data = json.loads(event.data) if event.data else None
    if not isinstance(data, dict) or "app" not in data:
        return None
    wish = data["app"]
    if "refuse" in wish:
        raise Refuse(wish["refuse"], "refused by the application")
    if "disconnect" in wish:
        raise DisconnectClient(wish["disconnect"], "disconnected by the application")
    return ConnectReply(
        user=wish.get("user"),
        info=json.dumps(wish["info"]).encode() if "info" in wish else None,
        data=json.dumps({"name": event.name, "version": event.version, "user": event.user}).encode(),
        channels=wish.get("channels", ()),
        expire_at=wish.get("expire_at"),
    )


@app.on_subscribe
async def subscribe(event: SubscribeEvent) -> SubscribeReply | None:
    """Decides about the channels of the namespace `app`."""
    if not event.channel.startswith("app:"):
        return None
    if event.channel == "app:refused":
        raise Refuse(1043, "no entry")
    if event.channel == "app:kicked":
        raise DisconnectClient(4502, "wrong door")
    if event.channel == "app:rules":
        return None
    given = json.loads(event.data) if event.data else None
    answer = {"given": given, "user": event.context.user}
    return SubscribeReply(info=b'{"role":"guest"}', data=json.dumps(answer).encode())


@app.on_publish
async def publish(event: PublishEvent) -> PublishReply | None:
    """Decides about publications into the namespace `app`."""
    if not event.channel.startswith("app:"):
        return None
    data = json.loads(event.data)
    if data == "refuse":
        raise Refuse(1044, "unheard of")
    if data == "rules":
        return None
    return PublishReply(data=json.dumps({"checked": data}).encode(), tags={"by": "app"})


@app.on_disconnect
async def disconnect(event: DisconnectEvent) -> None:
    """Remembers who left, and why."""
    entry = {"client": event.context.client, "code": event.code, "reason": event.reason}
    disconnects.setdefault(event.context.user, []).append(entry)


@app.on_message
async def message(event: MessageEvent) -> None:
    """Remembers what was sent."""
    messages.setdefault(event.context.user, []).append(json.loads(event.data))
