"""connect and refresh: who the client is, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from auth.claims import NO_GRANT, ConnectionClaims, SubscriptionGrant
from auth.errors import KeysUnavailable, TokenExpired, TokenInvalid
from channels.eager import in_task
from channels.namespaces import DELTA_TYPES
from channels.permissions import SubscriptionRequest, subscription_mode
from hub import codes, protocol
from hub.app import ConnectEvent, ConnectReply
from hub.app_replies import checked_connect_reply
from hub.codes import CloseSession, ReplyError
from hub.commands.subscribe import channel_overrides
from hub.entering import Entry, Prepared, abandon, activate, prepare
from hub.expiry import expire_session, ttl
from hub.protocol import ConnectRequest, RefreshRequest, SubscribeRequest, fragment
from hub.subscription import Stage

if TYPE_CHECKING:
    from hub.session import Session


async def connect(session: Session, command_id: int, request: ConnectRequest) -> None:
    node = session.node
    started = node.loop.time()
    session.stage = Stage.CONNECTING
    claims = await _claims(session, request)
    reply = await _ask_app(session, request, claims)
    session.name, session.app_version = request.name[:64], request.version[:64]
    if claims is not None:
        session.user, session.info, session.meta = claims.user, claims.info, claims.meta
        session.expire_at, session.token_refresh = claims.expire_at, claims.expire_at > 0
    if reply is not None:
        session.user = session.user if reply.user is None else reply.user
        session.info = session.info if reply.info is None else reply.info
        if reply.expire_at is not None:
            session.expire_at, session.token_refresh = reply.expire_at, False
    if 0 < session.expire_at <= node.clock():
        raise ReplyError(codes.EXPIRED)
    grants = _grants(session, claims, reply)
    session.granted = frozenset(grants)
    prepared = await _prepare_all(session, grants, request.subs or {})
    try:
        _make_room(session)
        result = _result(session, reply, prepared)
    except BaseException:
        for each in prepared:
            abandon(each)
        raise
    _let_in(session, protocol.reply(command_id, b"connect", result), prepared)
    node.metrics.connect_seconds.observe(node.loop.time() - started)


def _make_room(session: Session) -> None:
    """Hold the user to its limits; raises ``CloseSession`` if there is no room, or nobody left to let in."""
    settings = session.node.settings.client
    others = tuple(session.node.users.get(session.user, ())) if session.user else ()
    if session.closed:
        raise CloseSession(codes.CONNECTION_CLOSED)
    personal = settings.subscribe_to_user_personal_channel
    if personal.enabled and personal.single_connection:
        for other in others:
            other.close(codes.CONNECTION_LIMIT)
    elif settings.user_connection_limit and len(others) >= settings.user_connection_limit:
        raise CloseSession(codes.CONNECTION_LIMIT)


def _let_in(session: Session, reply: bytes, prepared: list[Prepared]) -> None:
    """Everything is known: answer, and begin to deliver."""
    session.stage = Stage.CONNECTED
    session.connected_at = session.node.clock()
    session.node.session_connected(session)
    session.begin_pings()
    session.send(reply)
    for each in prepared:
        activate(each)
    expire_session(session, session.expire_at)


def _result(session: Session, reply: ConnectReply | None, prepared: list[Prepared]) -> bytes:
    """What the connect reply says."""
    node = session.node
    settings = node.settings.client
    result: dict[str, Any] = {"client": session.client, "version": node.version}
    if session.expire_at and session.token_refresh:
        result["expires"] = True
        result["ttl"] = ttl(session, session.expire_at)
    if reply is not None and reply.data:
        result["data"] = fragment(reply.data)
    if prepared:
        result["subs"] = {each.subscription.channel.name: fragment(each.encoded) for each in prepared}
    interval = settings.ping_interval.total_seconds()
    if interval and not session.transport.native_pings:
        result["ping"] = max(round(interval), 1)
        if settings.pong_timeout:
            result["pong"] = True
    if settings.connect_include_server_time:
        result["time"] = int(node.clock() * 1000)
    return orjson.dumps(result)


async def _claims(session: Session, request: ConnectRequest) -> ConnectionClaims | None:
    """Who the client says to be, proven; ``None`` when it says nothing and need not."""
    node = session.node
    settings = node.settings.client
    if session.header_user is not None:
        return ConnectionClaims(user=session.header_user)
    if request.token:
        try:
            claims = await node.connection_tokens.connection(request.token)
        except TokenExpired:
            raise ReplyError(codes.TOKEN_EXPIRED) from None
        except TokenInvalid:
            raise CloseSession(codes.INVALID_TOKEN) from None
        except KeysUnavailable:
            raise ReplyError(codes.INTERNAL) from None
        if not claims.user and settings.disallow_anonymous_connection_tokens:
            raise CloseSession(codes.PERMISSION_DENIED_DISCONNECT)
        return claims
    if settings.insecure or settings.allow_anonymous_connect_without_token or node.app.connect_handler is not None:
        return None
    raise CloseSession(codes.BAD_REQUEST_DISCONNECT)


async def _ask_app(session: Session, request: ConnectRequest, claims: ConnectionClaims | None) -> ConnectReply | None:
    handler = session.node.app.connect_handler
    if handler is None:
        return None
    await in_task()
    event = ConnectEvent(
        client=session.client,
        user=claims.user if claims is not None else None,
        data=bytes(request.data),
        name=request.name,
        version=request.version,
        headers=request.headers or {},
    )
    reply = checked_connect_reply(await handler(event))
    settings = session.node.settings.client
    if reply is None or reply.user is None:
        anonymous = settings.insecure or settings.allow_anonymous_connect_without_token
        if claims is None and not anonymous:
            raise CloseSession(codes.BAD_REQUEST_DISCONNECT)
    return reply


def _grants(
    session: Session, claims: ConnectionClaims | None, reply: ConnectReply | None
) -> dict[str, SubscriptionGrant]:
    """The server-side subscriptions that the connection begins with."""
    grants: dict[str, SubscriptionGrant] = dict(claims.grants) if claims is not None else {}
    if reply is not None:
        for channel in reply.channels:
            grants.setdefault(channel, NO_GRANT)
    personal = session.node.settings.client.subscribe_to_user_personal_channel
    if personal.enabled and session.user:
        channel = session.node.rules.personal_channel(session.user, personal.personal_channel_namespace)
        grants.setdefault(channel, NO_GRANT)
    return grants


async def _prepare_all(
    session: Session, grants: Mapping[str, SubscriptionGrant], positions: Mapping[str, SubscribeRequest]
) -> list[Prepared]:
    if len(grants) > session.node.settings.client.channel_limit:
        raise CloseSession(codes.CHANNEL_LIMIT)
    prepared: list[Prepared] = []
    try:
        for name, grant in grants.items():
            prepared.append(await prepare(session, server_side_entry(session, name, grant, positions.get(name))))
    except BaseException:
        for each in prepared:
            abandon(each)
        raise
    return prepared


def server_side_entry(
    session: Session, name: str, grant: SubscriptionGrant, position: SubscribeRequest | None = None
) -> Entry:
    """A subscription that the server makes for a client; raises ``ChannelError``."""
    channel = session.node.rules.resolve(name)
    delta = position.delta if position is not None and position.delta in DELTA_TYPES else ""
    mode = subscription_mode(
        channel,
        user=session.user,
        request=SubscriptionRequest(delta=delta),
        overrides=channel_overrides(grant.overrides),
    )
    recover = position.position() if position is not None and position.recover else None
    return Entry(
        channel=channel,
        mode=mode,
        recover=recover,
        chan_info=grant.info,
        data=grant.data,
        server_side=True,
    )


async def refresh(session: Session, command_id: int, request: RefreshRequest) -> None:
    node = session.node
    if not request.token or not session.token_refresh:
        raise CloseSession(codes.BAD_REQUEST_DISCONNECT)
    try:
        claims = await node.connection_tokens.connection(request.token)
    except TokenExpired:
        raise CloseSession(codes.CONNECTION_EXPIRED) from None
    except TokenInvalid:
        raise CloseSession(codes.INVALID_TOKEN) from None
    except KeysUnavailable:
        raise ReplyError(codes.INTERNAL) from None
    if claims.user != session.user:
        raise CloseSession(codes.INVALID_TOKEN)
    if 0 < claims.expire_at <= node.clock():
        raise ReplyError(codes.EXPIRED)
    if session.granted != frozenset(_grants(session, claims, None)):
        raise CloseSession(codes.INSUFFICIENT_STATE)
    session.info, session.meta = claims.info, claims.meta
    expire_session(session, claims.expire_at)
    result = {"expires": True, "ttl": ttl(session, claims.expire_at)} if claims.expire_at else {}
    session.send(protocol.reply(command_id, b"refresh", orjson.dumps(result)))
