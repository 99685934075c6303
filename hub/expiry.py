"""Expiry: when a connection or a subscription ends that was allowed for a time only.

What its client can refresh with a new token gets a grace beyond its time; what only the server can extend does not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hub import codes

if TYPE_CHECKING:
    from hub.session import Session
    from hub.subscription import Subscription

MAX_TTL = 365 * 24 * 3600
"""Seconds; the longest time to live that is told to a client."""


def ttl(session: Session, expire_at: int) -> int:
    """Whole seconds until ``expire_at`` (Unix seconds), as clients are told them: 1 to ``MAX_TTL``."""
    return min(max(expire_at - math.floor(session.node.clock()), 1), MAX_TTL)


def expire_session(session: Session, expire_at: int) -> None:
    """Have the connection end at ``expire_at`` (Unix seconds; 0 = never) unless that is moved again."""
    session.expire_at = expire_at
    if session.expiry is not None:
        session.expiry.cancel()
        session.expiry = None
    if not expire_at or session.closed:
        return
    delay = expire_at - session.node.clock()
    if session.token_refresh:
        delay += session.node.settings.client.expired_close_delay.total_seconds()
    session.expiry = session.node.wheel.call_later(max(delay, 0.0), lambda: session.close(codes.CONNECTION_EXPIRED))


def expire_subscription(subscription: Subscription, expire_at: int) -> None:
    """Have the subscription end at ``expire_at`` (Unix seconds; 0 = never) unless that is moved again."""
    subscription.expire_at = expire_at
    if subscription.expiry is not None:
        subscription.expiry.cancel()
        subscription.expiry = None
    if not expire_at:
        return
    node = subscription.session.node
    delay = expire_at - node.clock()
    if subscription.token_refresh:
        delay += node.settings.client.expired_sub_close_delay.total_seconds()
    subscription.expiry = node.wheel.call_later(max(delay, 0.0), lambda: _expired(subscription))


def _expired(subscription: Subscription) -> None:
    if subscription.server_side:
        subscription.session.close(codes.SUBSCRIPTION_EXPIRED)
    else:
        subscription.session.unsubscribe(subscription, codes.UNSUBSCRIBE_EXPIRED)
