"""The methods of the server API: each takes a request and returns its result, as something that orjson can encode.

They obey the same channel rules as clients, but need no permission: who has an API key may do everything.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fnmatch
import resource
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Raw

from channels.errors import BadRequest, ChannelError, NotAvailable
from channels.history import Guard
from channels.names import ResolvedChannel
from channels.permissions import Overrides, subscription_mode
from channels.recovery import visible
from hub import codes, protocol
from hub.api import requests
from hub.codes import CloseSession, ReplyError
from hub.commands.messages import encode_result
from hub.commands.reads import history_query
from hub.entering import Entry, activate, prepare, under_way
from hub.errors import error_of
from hub.expiry import expire_session, ttl
from hub.node import Node
from hub.payload import checked_payload
from hub.protocol import bounded, encode_client_info, fragment, is_json, one_line
from hub.session import Session
from storage.contract import Appended, Publication

AT_ONCE = 1000
"""Channels of one broadcast that are published to before the event loop has its turn."""

Result = Any


class Methods:
    """The API of one node; ``table`` maps a method's name to its request type and function."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.table: dict[str, tuple[type[Any], Callable[[Any], Awaitable[Result]]]] = {
            "publish": (requests.Publish, self.publish),
            "broadcast": (requests.Broadcast, self.broadcast),
            "subscribe": (requests.Subscribe, self.subscribe),
            "unsubscribe": (requests.Unsubscribe, self.unsubscribe),
            "disconnect": (requests.Disconnect, self.disconnect),
            "refresh": (requests.Refresh, self.refresh),
            "presence": (requests.Channel, self.presence),
            "presence_stats": (requests.Channel, self.presence_stats),
            "history": (requests.History, self.history),
            "history_remove": (requests.Channel, self.history_remove),
            "history_redact": (requests.HistoryRedact, self.history_redact),
            "channels": (requests.Channels, self.channels),
            "connections": (requests.Connections, self.connections),
            "info": (requests.Info, self.info),
            "rpc": (requests.Rpc, self.rpc),
        }

    # Publishing

    async def publish(self, request: requests.Publish) -> Result:
        return position_result(await self._publish(request.channel, request))

    async def broadcast(self, request: requests.Broadcast) -> Result:
        async def one(channel: str) -> Result:
            try:
                return {"result": position_result(await self._publish(channel, request))}
            except (ChannelError, ReplyError) as error:
                return {"error": error_result(error)}

        responses: list[Result] = []
        for start in range(0, len(request.channels), AT_ONCE):
            responses += await asyncio.gather(*(one(each) for each in request.channels[start : start + AT_ONCE]))
        return {"responses": responses}

    async def _publish(self, name: str, message: requests.Message) -> Appended:
        channel = self._node.rules.resolve(name)
        data = checked_payload(channel.options, payload(message.data, message.b64data))
        publication = Publication(
            data=data,
            tags=message.tags or None,
            delta=message.delta or channel.options.delta_publish,
            exclude_client=message.exclude_client,
        )
        guard = Guard(
            idempotency_key=message.idempotency_key,
            version=bounded(message.version),
            version_epoch=message.version_epoch,
            skip_history=message.skip_history,
        )
        return await self._node.publish(channel, publication, guard, way="api")

    # Sessions

    async def subscribe(self, request: requests.Subscribe) -> Result:
        channel = self._node.rules.resolve(request.channel)
        mode = subscription_mode(channel, user=request.user, overrides=overrides(request.override))
        since = request.recover_since
        for session in self._sessions(request):
            if channel.name in session.subscriptions or channel.name in session.subscribing:
                continue
            if len(session.subscriptions) + len(session.subscribing) >= self._node.settings.client.channel_limit:
                raise ReplyError(codes.LIMIT_EXCEEDED)
            entry = Entry(
                channel=channel,
                mode=mode,
                recover=since.position() if since is not None and mode.recoverable else None,
                chan_info=raw_json(request.info, request.b64info),
                data=raw_json(request.data, request.b64data),
                expire_at=min(request.expire_at, 2**53),
                server_side=True,
                push_missed=True,
            )
            await self._subscribe(session, entry)
        return {}

    async def _subscribe(self, session: Session, entry: Entry) -> None:
        name = entry.channel.name
        with under_way(session, name):
            try:
                prepared = await prepare(session, entry)
            except CloseSession as ended:
                session.close(ended.disconnect)
                return
            session.send(protocol.subscribe_push(name, prepared.result))
            activate(prepared)

    async def unsubscribe(self, request: requests.Unsubscribe) -> Result:
        if request.channel:
            self._node.rules.resolve(request.channel)
        for session in self._sessions(request):
            session.revoked = session.revoked | {
                name for name in session.subscribing if not request.channel or name == request.channel
            }
            for name, subscription in tuple(session.subscriptions.items()):
                if not request.channel or name == request.channel:
                    session.unsubscribe(subscription, codes.SERVER_UNSUBSCRIBE)
        return {}

    async def disconnect(self, request: requests.Disconnect) -> Result:
        why = codes.FORCE_DISCONNECT
        if request.disconnect is not None:
            why = codes.Disconnect(request.disconnect.code, request.disconnect.reason)
            if len(why.reason.encode()) > 123:
                raise BadRequest("the reason is longer than 123 bytes")
        for session in self._sessions(request):
            if session.client not in request.whitelist:
                session.close(why)
        return {}

    async def refresh(self, request: requests.Refresh) -> Result:
        now = self._node.clock()
        for session in self._sessions(request):
            if request.expired or 0 < request.expire_at <= now:
                session.close(codes.CONNECTION_EXPIRED)
                continue
            if request.info:
                session.info = raw_json(request.info, "")
            expire_session(session, min(request.expire_at, 2**53))
            session.send(protocol.refresh_push(bool(request.expire_at), ttl(session, request.expire_at)))
        return {}

    def _sessions(
        self, request: requests.Subscribe | requests.Unsubscribe | requests.Disconnect | requests.Refresh
    ) -> list[Session]:
        return self._node.of_user(request.user, client=request.client, session=request.session)

    # Reading

    async def presence(self, request: requests.Channel) -> Result:
        channel = self._with_presence(request.channel)
        entries = await self._node.presence.get(channel.name)
        return {"presence": {client: fragment(encode_client_info(info)) for client, info in entries.items()}}

    async def presence_stats(self, request: requests.Channel) -> Result:
        channel = self._with_presence(request.channel)
        return (await self._node.presence.stats(channel.name))._asdict()

    def _with_presence(self, name: str) -> ResolvedChannel:
        channel = self._node.rules.resolve(name)
        if not channel.options.presence:
            raise NotAvailable("presence is off in this channel's namespace")
        return channel

    async def history(self, request: requests.History) -> Result:
        node = self._node
        channel = node.rules.resolve(request.channel)
        query = history_query(
            protocol.HistoryRequest(
                since=request.since,
                reverse=request.reverse,
                since_time=request.since_time,
                until_time=request.until_time,
            ),
            max(request.limit, -1),
            node.settings.http_api.history_max_bytes,
        )
        started = node.loop.time()
        page = await node.history.read(channel, query, epoch=request.since.epoch if request.since is not None else "")
        node.metrics.history_seconds.observe(node.loop.time() - started)
        return {
            "publications": [publication_result(each) for each in visible(page.publications)],
            "epoch": page.position.epoch,
            "offset": page.position.offset,
        }

    async def history_remove(self, request: requests.Channel) -> Result:
        await self._node.history.remove(self._node.rules.resolve(request.channel))
        return {}

    async def history_redact(self, request: requests.HistoryRedact) -> Result:
        channel = self._node.rules.resolve(request.channel)
        data = payload(request.data, request.b64data)
        checked = checked_payload(channel.options, data) if data else None
        return {"redacted": await self._node.history.redact(channel, request.offset, checked)}

    async def channels(self, request: requests.Channels) -> Result:
        pattern = request.pattern
        names = sorted(
            name
            for name, fanout in self._node.fanouts.items()
            if fanout.count and name > request.cursor and (not pattern or fnmatch.fnmatchcase(name, pattern))
        )
        page, cursor = paged(names, request.limit)
        found = {name: {"num_clients": self._node.fanouts[name].count} for name in page}
        return {"channels": found, **({"cursor": cursor} if cursor else {})}

    async def connections(self, request: requests.Connections) -> Result:
        node = self._node
        if request.channel:
            fanout = node.fanouts.get(node.rules.resolve(request.channel).name)
            sessions = [each.session for each in fanout.subscriptions()] if fanout is not None else []
            if request.user is not None:
                sessions = [each for each in sessions if each.user == request.user]
        elif request.user is not None:
            sessions = node.of_user(request.user)
        else:
            sessions = list(node.sessions.values())
        clients = sorted(each.client for each in sessions if each.client > request.cursor)
        page, cursor = paged(clients, request.limit)
        found = {client: connection_result(node.sessions[client]) for client in page}
        return {"connections": found, **({"cursor": cursor} if cursor else {})}

    async def info(self, request: requests.Info) -> Result:
        node = self._node
        usage = resource.getrusage(resource.RUSAGE_SELF)
        seconds = node.loop.time() - node.started_at
        described = {
            "uid": node.id,
            "name": node.name,
            "version": node.version,
            "num_clients": len(node.sessions),
            "num_users": len(node.users),
            "num_channels": sum(1 for each in node.fanouts.values() if each.count),
            "num_subs": sum(each.count for each in node.fanouts.values()),
            "uptime": int(seconds),
            "process": {
                "cpu": round(100 * (usage.ru_utime + usage.ru_stime) / max(seconds, 1.0), 2),
                "rss": resident_bytes(),
            },
        }
        return {"nodes": [described]}

    async def rpc(self, request: requests.Rpc) -> Result:
        method = self._node.app.api_methods.get(request.method)
        if method is None:
            raise ReplyError(codes.METHOD_NOT_FOUND)
        result = encode_result(await method(bytes(request.params)))
        return {"data": fragment(result)} if result else {}


def payload(data: Raw, b64data: str) -> bytes:
    """The payload of a request: ``data`` as it came, or ``b64data`` decoded; raises ``BadRequest``."""
    if b64data:
        try:
            return base64.b64decode(b64data, validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest("b64data is not base64") from None
    return bytes(data)


def raw_json(data: Raw, b64data: str) -> bytes:
    """Raw JSON of a request, empty when there is none; raises ``BadRequest``."""
    decoded = payload(data, b64data)
    if decoded and not is_json(decoded):
        raise BadRequest("b64info and b64data have to be JSON here")
    return one_line(decoded)


def position_result(appended: Appended) -> Result:
    """Offset and epoch, both left out where there is no history."""
    offset, epoch = appended.position
    return {"offset": offset, "epoch": epoch} if offset else {}


def publication_result(publication: Publication) -> Result:
    """A publication as the API shows it; a payload that is not JSON comes as ``b64data``."""
    if is_json(publication.data):
        return fragment(protocol.encode_publication(publication, time=True))
    tail = protocol.publication_tail(publication, time=True)
    data = base64.b64encode(publication.data)
    return fragment(b'{"b64data":"' + data + b'"' + tail + b"}")


def connection_result(session: Session) -> Result:
    """A session as the API shows it."""
    described: dict[str, Any] = {
        "user": session.user,
        "transport": session.transport.name,
        "protocol": "json",
        "connected_at": int(session.connected_at * 1000),
        "num_channels": len(session.subscriptions),
    }
    if session.name:
        described["app_name"] = session.name
    if session.app_version:
        described["app_version"] = session.app_version
    if session.info:
        described["conn_info"] = fragment(session.info)
    return described


def error_result(error: ChannelError | ReplyError) -> Result:
    """An error as the API shows it; where the caller can mend it, the message says what is wrong."""
    if isinstance(error, ReplyError):
        return {"code": error.error.code, "message": error.error.message}
    found = error_of(error)
    detail = f": {error}" if found in (codes.BAD_REQUEST, codes.NOT_AVAILABLE) and str(error) else ""
    return {"code": found.code, "message": found.message + detail}


def overrides(asked: requests.SubscribeOverride | None) -> Overrides:
    """The overrides of an API subscribe."""
    if asked is None:
        return Overrides()
    values = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return Overrides(**{name: each.value for name, each in values.items() if each is not None})


def paged(names: list[str], limit: int) -> tuple[list[str], str]:
    """The first ``limit`` names and the cursor that goes on behind them, empty at the end."""
    if not limit or len(names) <= limit:
        return names, ""
    return names[:limit], names[limit - 1]


def resident_bytes() -> int:
    """Memory of this process that is resident, in bytes."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
