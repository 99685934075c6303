"""subscribe, sub_refresh and unsubscribe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from auth.claims import Overrides as GrantedOverrides
from auth.claims import SubscriptionClaims
from auth.errors import KeysUnavailable, TokenExpired, TokenInvalid
from channels.eager import in_task
from channels.errors import BadRequest
from channels.filters import decode_filter
from channels.names import ResolvedChannel
from channels.namespaces import DELTA_TYPES
from channels.permissions import NO_OVERRIDES, Overrides, SubscriptionRequest, may_subscribe, subscription_mode
from hub import codes, protocol
from hub.app import SubscribeEvent
from hub.app_replies import checked_subscribe_reply
from hub.codes import CloseSession, ReplyError
from hub.entering import Entry, activate, prepare, under_way
from hub.expiry import expire_subscription, ttl
from hub.protocol import ChannelRequest, SubRefreshRequest, SubscribeRequest

if TYPE_CHECKING:
    from hub.session import Session

REJECT_UNRECOVERED = 2
"""Bit of ``flag``: answer error 112 where recovery fails."""


async def subscribe(session: Session, command_id: int, request: SubscribeRequest) -> None:
    node = session.node
    if not request.channel or (request.delta and request.delta not in DELTA_TYPES):
        raise CloseSession(codes.BAD_REQUEST_DISCONNECT)
    channel = node.rules.resolve(request.channel)
    if channel.name in session.subscriptions or channel.name in session.subscribing:
        raise ReplyError(codes.ALREADY_SUBSCRIBED)
    if len(session.subscriptions) + len(session.subscribing) >= node.settings.client.channel_limit:
        raise ReplyError(codes.LIMIT_EXCEEDED)
    if request.type:
        raise ReplyError(codes.PERMISSION_DENIED)
    with under_way(session, channel.name):
        prepared = await prepare(session, await _entry(session, channel, request))
        session.send(protocol.reply(command_id, b"subscribe", prepared.encoded))
        activate(prepared)


async def _entry(session: Session, channel: ResolvedChannel, request: SubscribeRequest) -> Entry:
    """What the client is allowed to have of what it asks for."""
    node = session.node
    claims = await _claims(session, channel, request.token) if request.token else None
    info, data, expire_at = b"", b"", 0
    granted = claims is not None
    overrides = NO_OVERRIDES
    if claims is not None:
        info, data, expire_at = claims.info, claims.data, claims.expire_at
        overrides = channel_overrides(claims.overrides)
    if node.app.subscribe_handler is not None:
        await in_task()
        event = SubscribeEvent(session.context(), channel.name, bytes(request.data), granted)
        reply = checked_subscribe_reply(await node.app.subscribe_handler(event))
        if reply is not None:
            granted = True
            info = info if reply.info is None else reply.info
            data, expire_at = reply.data or data, reply.expire_at or expire_at
    insecure = node.settings.client.insecure
    may_subscribe(channel, user=session.user, token_granted=granted, insecure=insecure)
    wanted = bytes(request.tf)
    mode = subscription_mode(
        channel,
        user=session.user,
        request=SubscriptionRequest(
            positioned=request.positioned,
            recoverable=request.recoverable,
            join_leave=request.join_leave,
            delta=request.delta,
            filtered=bool(wanted) and wanted != protocol.NULL,
        ),
        overrides=overrides,
        insecure=insecure,
    )
    return Entry(
        channel=channel,
        mode=mode,
        recover=request.position() if request.recover else None,
        reject_unrecovered=bool(request.flag & REJECT_UNRECOVERED),
        filter=decode_filter(wanted) if wanted and wanted != protocol.NULL else None,
        chan_info=info,
        data=data,
        expire_at=expire_at,
        token_refresh=claims is not None and expire_at > 0,
    )


async def _claims(session: Session, channel: ResolvedChannel, token: str) -> SubscriptionClaims:
    try:
        claims = await session.node.subscription_tokens.subscription(token)
    except TokenExpired:
        raise ReplyError(codes.TOKEN_EXPIRED) from None
    except TokenInvalid:
        raise ReplyError(codes.PERMISSION_DENIED) from None
    except KeysUnavailable:
        raise ReplyError(codes.INTERNAL) from None
    _check_claims(session, channel.name, claims)
    if 0 < claims.expire_at <= session.node.clock():
        raise ReplyError(codes.EXPIRED)
    return claims


def _check_claims(session: Session, channel: str, claims: SubscriptionClaims) -> None:
    """A token of another channel, user or client is an attempt to cheat: raises ``CloseSession``."""
    if claims.channel != channel or claims.user != session.user:
        raise CloseSession(codes.INVALID_TOKEN)
    if claims.client and claims.client != session.client:
        raise CloseSession(codes.INVALID_TOKEN)


def channel_overrides(granted: GrantedOverrides) -> Overrides:
    """A token's overrides as the channel rules take them."""
    return Overrides(
        presence=granted.presence,
        join_leave=granted.join_leave,
        force_push_join_leave=granted.force_push_join_leave,
        force_positioning=granted.force_positioning,
        force_recovery=granted.force_recovery,
    )


async def sub_refresh(session: Session, command_id: int, request: SubRefreshRequest) -> None:
    node = session.node
    if not request.channel:
        raise CloseSession(codes.BAD_REQUEST_DISCONNECT)
    subscription = session.subscriptions.get(request.channel)
    if subscription is None:
        raise ReplyError(codes.PERMISSION_DENIED)
    if not request.token:
        raise BadRequest("the token is missing")
    if not subscription.token_refresh:
        raise CloseSession(codes.BAD_REQUEST_DISCONNECT)
    try:
        claims = await node.subscription_tokens.subscription(request.token)
    except TokenExpired:
        session.unsubscribe(subscription, codes.UNSUBSCRIBE_EXPIRED)
        raise ReplyError(codes.TOKEN_EXPIRED) from None
    except TokenInvalid:
        raise CloseSession(codes.INVALID_TOKEN) from None
    except KeysUnavailable:
        raise ReplyError(codes.INTERNAL) from None
    _check_claims(session, request.channel, claims)
    if 0 < claims.expire_at <= node.clock():
        raise ReplyError(codes.EXPIRED)
    if session.subscriptions.get(request.channel) is not subscription:
        raise ReplyError(codes.PERMISSION_DENIED)
    subscription.info = session.client_info(claims.info)
    expire_subscription(subscription, claims.expire_at)
    result = {"expires": True, "ttl": ttl(session, claims.expire_at)} if claims.expire_at else {}
    session.send(protocol.reply(command_id, b"sub_refresh", orjson.dumps(result)))


async def unsubscribe(session: Session, command_id: int, request: ChannelRequest) -> None:
    if not request.channel:
        raise CloseSession(codes.BAD_REQUEST_DISCONNECT)
    subscription = session.subscriptions.pop(request.channel, None)
    if subscription is not None:
        leaving = session.node.subscription_ended(subscription)
        if leaving is not None:
            await asyncio.shield(leaving)  # it goes on if the client goes away meanwhile
    session.send(protocol.reply(command_id, b"unsubscribe"))
