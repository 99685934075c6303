"""Catching up: bring one subscription from where it stands to the present, paced by its peer's own reading.

Live publications wait in history meanwhile, so that nothing is kept for the subscription here. Many that catch up over the
same stretch share the reads (``History.tail``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from channels.errors import Unavailable
from channels.history import CachedPage
from hub import codes
from hub.cohort import delta_push
from hub.protocol import is_readable, publication_push
from storage.contract import Position, Publication

if TYPE_CHECKING:
    from hub.node import Node
    from hub.subscription import Subscription

logger = logging.getLogger("hub.catchup")

PORTION = 64 * 1024
"""Bytes written before the peer is given time to read."""
RETRY = 1.0
"""Seconds between attempts while history is out of reach, or behind the broker."""


async def catch_up(node: Node, subscription: Subscription, limit: int) -> None:
    """Send what lies between the subscription's position and its channel's, ``limit`` publications at a time."""
    session, fanout = subscription.session, subscription.fanout
    while _is_live(subscription):
        await session.writable()
        if subscription.position.offset >= fanout.position.offset:
            break
        try:
            kept = await node.history.tail(subscription.channel, subscription.position.offset, limit, fanout.position)
        except Unavailable as error:
            logger.warning("a subscription to %s waits for history: %s", fanout.name, error)
            await asyncio.sleep(RETRY)
            continue
        if not _is_live(subscription):
            return
        page = kept.page
        if page.position.epoch != subscription.position.epoch:
            session.insufficient_state(subscription)
            return
        if page.publications and page.publications[0].offset == subscription.position.offset + 1:
            if not all(is_readable(each) for each in page.publications):
                session.close(codes.INAPPROPRIATE_PROTOCOL)
                return
            await _send(subscription, kept)
            await asyncio.sleep(0)
        elif page.position.offset > subscription.position.offset:
            session.insufficient_state(subscription)
            return
        else:
            await asyncio.sleep(RETRY)
    if _is_live(subscription):
        subscription.catching_up = False
        fanout.settle(subscription)


def _is_live(subscription: Subscription) -> bool:
    session = subscription.session
    return not session.closed and session.subscriptions.get(subscription.channel.name) is subscription


async def _send(subscription: Subscription, kept: CachedPage) -> None:
    session = subscription.session
    metrics = session.node.metrics
    for publications, message in _portions(subscription, kept):
        await session.writable()
        if not _is_live(subscription):
            return
        if message:
            session.write(message)
            metrics.deliveries += len(publications)
        subscription.position = Position(publications[-1].offset, subscription.position.epoch)


def _portions(subscription: Subscription, kept: CachedPage) -> list[tuple[Sequence[Publication], bytes]]:
    """A page in messages of about ``PORTION`` bytes; those that need no filter are made once for all."""
    key = subscription.key
    if key.filter is None:
        kind = (key.wire, key.delta)
        portions = kept.rendered.get(kind)
        if portions is None:
            portions = kept.rendered[kind] = _render(subscription, kept)
        return portions
    return _render(subscription, kept)


def _render(subscription: Subscription, kept: CachedPage) -> list[tuple[Sequence[Publication], bytes]]:
    head, key = subscription.fanout.head, subscription.key
    portions: list[tuple[Sequence[Publication], bytes]] = []
    taken: list[Publication] = []
    messages: list[bytes] = []
    size = 0
    for each in kept.page.publications:
        taken.append(each)
        if not each.removed and (key.filter is None or key.filter.matches(each.tags)):
            message = delta_push(head, each, None) if key.delta else publication_push(head, each)
            messages.append(message)
            size += len(message)
        if size >= PORTION:
            portions.append((taken, key.wire.pack_all(messages)))
            taken, messages, size = [], [], 0
    if taken:
        portions.append((taken, key.wire.pack_all(messages)))
    return portions
