"""How a session enters a channel: first whatever may take time, then, in one go, the reply and the first delivery.

``prepare`` opens the channel, recovers what the client missed and enters presence. The caller then writes its reply and
calls ``activate`` without waiting in between, so that no publication can come before the reply or be lost after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from channels.filters import TagsFilter
from channels.history import CachedPage
from channels.names import ResolvedChannel
from channels.permissions import SubscriptionMode
from channels.recovery import Recovered, recover_cache, recover_stream
from hub import codes
from hub.catchup import catch_up
from hub.codes import CloseSession, ReplyError
from hub.cohort import CohortKey
from hub.expiry import expire_subscription, ttl
from hub.fanout import Fanout
from hub.protocol import encode_publication, encode_publications, encode_text_publication, fragment, is_readable
from hub.subscription import NO_CHANNELS, Subscription
from storage.contract import Position, Publication, ReadQuery

if TYPE_CHECKING:
    from hub.session import Session

PAGE = 300
"""Publications read at a time where no limit is set."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """What is asked of a subscription, by a client or on its behalf."""

    channel: ResolvedChannel
    mode: SubscriptionMode
    recover: Position | None = None
    """Where the client stands, if it wants to recover."""
    reject_unrecovered: bool = False
    """Answer with error 112 rather than begin anew where recovery fails."""
    filter: TagsFilter | None = None
    chan_info: bytes = b""
    data: bytes = b""
    expire_at: int = 0
    token_refresh: bool = False
    server_side: bool = False
    push_missed: bool = False
    """There is no reply that could carry what was missed: it follows as pushes."""


@dataclass(slots=True)
class Prepared:
    """A subscription that waits for its reply: ``result`` is what the reply says."""

    subscription: Subscription
    result: dict[str, Any]
    encoded: bytes
    """The result as JSON."""


@contextmanager
def under_way(session: Session, name: str) -> Iterator[None]:
    """Mark a channel as being subscribed to, from before ``prepare`` until after ``activate``."""
    session.subscribing = session.subscribing | {name}
    try:
        yield
    finally:
        session.subscribing = (session.subscribing - {name}) or NO_CHANNELS
        session.revoked = (session.revoked - {name}) or NO_CHANNELS


async def prepare(session: Session, entry: Entry) -> Prepared:
    """Do all that has to be awaited. Whoever calls it must ``activate`` or ``abandon`` what it returns.

    Raises ``ReplyError`` (112), ``ChannelError`` and ``CloseSession``; nothing is left behind then.
    """
    fanout = await session.node.open_channel(entry.channel)
    mode = entry.mode
    subscription = Subscription(
        session,
        entry.channel,
        fanout,
        CohortKey(session.transport.wire, bool(mode.delta), entry.filter),
    )
    subscription.info = session.client_info(entry.chan_info)
    subscription.server_side = entry.server_side
    subscription.positioned = mode.positioned
    subscription.recoverable = mode.recoverable
    subscription.join_leave = mode.join_leave
    subscription.pushes_join_leave = mode.push_join_leave
    subscription.expire_at = entry.expire_at
    subscription.token_refresh = entry.token_refresh
    try:
        result = await _result(session, entry, subscription, fanout)
        prepared = Prepared(subscription, result, orjson.dumps(result))
        if mode.presence:
            subscription.presence = True
            await session.node.presence.add(entry.channel.name, subscription.info)
        if session.closed:
            raise CloseSession(codes.CONNECTION_CLOSED)
    except BaseException:
        abandon(Prepared(subscription, {}, b""))
        raise
    return prepared


def abandon(prepared: Prepared) -> None:
    """Undo ``prepare``."""
    subscription = prepared.subscription
    node = subscription.session.node
    if subscription.presence:
        node.run(node.presence.remove(subscription.channel.name, subscription.info))
    node.release_channel(subscription.fanout)


def activate(prepared: Prepared) -> None:
    """Begin to deliver. The reply has just been written, and nothing was awaited since the last check of the session."""
    subscription = prepared.subscription
    session, fanout, node = subscription.session, subscription.fanout, subscription.session.node
    if session.closed:
        abandon(prepared)
        return
    session.subscriptions[subscription.channel.name] = subscription
    behind = subscription.positioned and subscription.position.offset < fanout.position.offset
    subscription.catching_up = behind
    fanout.add(subscription)
    fanout.holds -= 1
    if session.paused:
        fanout.loosen(subscription)
    expire_subscription(subscription, subscription.expire_at)
    if subscription.join_leave:
        # Before anything that may end the subscription again: its leave is published then.
        node.run(node.broker.publish_join(subscription.channel.name, subscription.info))
    if subscription.channel.name in session.revoked:
        session.unsubscribe(subscription, codes.SERVER_UNSUBSCRIBE)
    elif subscription.positioned and subscription.position.epoch != fanout.position.epoch:
        session.insufficient_state(subscription)
    elif behind:
        node.run(catch_up(node, subscription, _page_limit(session, subscription.channel)))


async def _result(session: Session, entry: Entry, subscription: Subscription, fanout: Fanout) -> dict[str, Any]:
    result: dict[str, Any] = {}
    mode = entry.mode
    if entry.token_refresh and entry.expire_at:
        result["expires"] = True
        result["ttl"] = ttl(session, entry.expire_at)
    if entry.data:
        result["data"] = fragment(entry.data)
    if mode.delta:
        result["delta"] = True
    if mode.recoverable:
        result["recoverable"] = True
    if not mode.positioned:
        return result
    result["positioned"] = True
    subscription.position = fanout.position
    if mode.recoverable and (entry.recover is not None or mode.auto_recover):
        await _recover(session, entry, subscription, fanout, result)
    else:
        result["offset"] = subscription.position.offset
    result["epoch"] = subscription.position.epoch
    if not result["offset"]:
        del result["offset"]
    return result


async def _recover(
    session: Session, entry: Entry, subscription: Subscription, fanout: Fanout, result: dict[str, Any]
) -> None:
    """Put the outcome of a recovery into ``result`` and the subscription."""
    node = session.node
    result["was_recovering"] = True
    asked = entry.recover
    publications: Any = None
    if entry.mode.cache:
        outcome = await _from_cache(session, entry, fanout)
    else:
        assert asked is not None
        outcome, publications = await _from_stream(session, entry, asked, fanout)
    node.metrics.recoveries["recovered" if outcome.recovered else "unrecovered"] += 1
    subscription.position = outcome.position
    if not outcome.recovered:
        if entry.reject_unrecovered:
            raise ReplyError(codes.UNRECOVERABLE_POSITION)
        subscription.position = fanout.position
        result["offset"] = subscription.position.offset
        return
    if entry.push_missed:
        if outcome.publications:
            subscription.position = Position(outcome.publications[0].offset - 1, outcome.position.epoch)
        result["offset"] = subscription.position.offset
        return
    result["recovered"] = True
    result["offset"] = asked.offset if asked is not None and not entry.mode.cache else outcome.position.offset
    if outcome.publications:
        result["publications"] = publications or fragment(_encode(entry, outcome.publications))


async def _from_cache(session: Session, entry: Entry, fanout: Fanout) -> Recovered:
    asked = entry.recover
    if asked is not None and asked == fanout.position:
        return Recovered(True, (), asked, True)
    page = await session.node.history.read(entry.channel, ReadQuery(limit=1, reverse=True))
    return recover_cache(asked, page)


async def _from_stream(session: Session, entry: Entry, asked: Position, fanout: Fanout) -> tuple[Recovered, Any]:
    """The outcome, and its publications already encoded if that could be shared with others."""
    position = fanout.position
    if asked.epoch and asked.epoch != position.epoch:
        return Recovered(False, (), position, True), None
    if asked.offset == position.offset:
        return Recovered(True, (), position, True), None
    limit = _page_limit(session, entry.channel)
    kept = await session.node.history.tail(entry.channel, asked.offset, limit, position)
    outcome = recover_stream(asked, kept.page, paged=entry.channel.options.durable)
    if not outcome.recovered:
        return outcome, None
    cut = _cut(outcome, session.node.settings.client.queue_max_size // 2)
    if cut is outcome and entry.filter is None and not entry.mode.delta and outcome.publications:
        return outcome, _shared(kept, outcome.publications)
    return cut, None


def _page_limit(session: Session, channel: ResolvedChannel) -> int:
    """Publications read at a time; on recent channels, which are not paged, the limit of a recovery."""
    return session.node.settings.client.recovery_max_publication_limit or (PAGE if channel.options.durable else -1)


def _cut(outcome: Recovered, most: int) -> Recovered:
    """Only so many of the publications that the reply stays within ``most`` bytes; the rest follows after it."""
    size = 0
    for index, each in enumerate(outcome.publications):
        size += len(each.data)
        if size > most and index:
            last = outcome.publications[index - 1].offset
            return Recovered(True, outcome.publications[:index], Position(last, outcome.position.epoch), False)
    return outcome


def _shared(kept: CachedPage, publications: Sequence[Publication]) -> Any:
    encoded = kept.rendered.get("json")
    if encoded is None:
        _check_json(publications)
        encoded = kept.rendered["json"] = fragment(encode_publications(publications))
    return encoded


def _encode(entry: Entry, publications: Sequence[Publication]) -> bytes:
    _check_json(publications)
    wanted = entry.filter
    if wanted is not None:
        publications = [each for each in publications if wanted.matches(each.tags)]
    if entry.mode.delta:
        # Full payloads: a chain of deltas over a whole page would cost more time than it saves bytes.
        encoded = [encode_text_publication(each, each.data, delta=False) for each in publications]
    else:
        encoded = [encode_publication(each) for each in publications]
    return b"[" + b",".join(encoded) + b"]"


def _check_json(publications: Sequence[Publication]) -> None:
    if not all(is_readable(each) for each in publications):
        raise CloseSession(codes.INAPPROPRIATE_PROTOCOL)
