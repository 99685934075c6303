"""history, presence and presence_stats: what a client may read of a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from channels.errors import BadRequest
from channels.names import ResolvedChannel
from channels.permissions import may_history, may_presence
from channels.recovery import visible
from hub import codes, protocol
from hub.codes import CloseSession, ReplyError
from hub.protocol import ChannelRequest, HistoryRequest, bounded, encode_client_info, encode_publications, is_readable
from storage.contract import Page, ReadQuery

if TYPE_CHECKING:
    from hub.session import Session


def history_query(request: HistoryRequest, limit: int, max_bytes: int) -> ReadQuery:
    """What a history request asks of a stream, at most ``limit`` publications and a page of about ``max_bytes``.

    Raises ``BadRequest``.
    """
    since = -1
    if request.since is not None:
        since = request.since.offset
        if request.reverse and since == 0:
            raise BadRequest("reading backwards needs an offset above 0")
    return ReadQuery(
        limit=limit,
        since=bounded(since),
        since_time=bounded(request.since_time),
        until_time=bounded(request.until_time),
        reverse=request.reverse,
        max_bytes=max_bytes,
    )


def encode_history(page: Page) -> bytes:
    """A history result; raises ``ReplyError`` if a payload is not JSON."""
    publications = visible(page.publications)
    if not all(is_readable(each) for each in publications):
        raise ReplyError(codes.BAD_REQUEST)
    position = orjson.dumps({"epoch": page.position.epoch, "offset": page.position.offset})
    return b'{"publications":' + encode_publications(publications, time=True) + b"," + position[1:]


async def history(session: Session, command_id: int, request: HistoryRequest) -> None:
    node = session.node
    channel = _channel(session, request.channel)
    may_history(
        channel,
        user=session.user,
        subscribed=channel.name in session.subscriptions,
        insecure=node.settings.client.insecure,
    )
    most = node.settings.client.history_max_publication_limit
    limit = request.limit
    if most and (limit < 0 or limit > most):
        limit = most
    query = history_query(request, max(limit, -1), node.settings.client.queue_max_size)
    started = node.loop.time()
    page = await node.history.read(channel, query, epoch=request.since.epoch if request.since is not None else "")
    node.metrics.history_seconds.observe(node.loop.time() - started)
    try:
        result = encode_history(page)
    except ReplyError:
        raise CloseSession(codes.INAPPROPRIATE_PROTOCOL) from None
    session.send(protocol.reply(command_id, b"history", result))


async def presence(session: Session, command_id: int, request: ChannelRequest) -> None:
    channel = _presence_channel(session, request)
    entries = await session.node.presence.get(channel.name)
    pairs = [orjson.dumps(client) + b":" + encode_client_info(info) for client, info in entries.items()]
    session.send(protocol.reply(command_id, b"presence", b'{"presence":{' + b",".join(pairs) + b"}}"))


async def presence_stats(session: Session, command_id: int, request: ChannelRequest) -> None:
    channel = _presence_channel(session, request)
    stats = await session.node.presence.stats(channel.name)
    session.send(protocol.reply(command_id, b"presence_stats", orjson.dumps(stats._asdict())))


def _channel(session: Session, name: str) -> ResolvedChannel:
    if not name:
        raise CloseSession(codes.BAD_REQUEST_DISCONNECT)
    return session.node.rules.resolve(name)


def _presence_channel(session: Session, request: ChannelRequest) -> ResolvedChannel:
    channel = _channel(session, request.channel)
    may_presence(
        channel,
        user=session.user,
        subscribed=channel.name in session.subscriptions,
        insecure=session.node.settings.client.insecure,
    )
    return channel
