"""A subscription: one session on one channel, with what was agreed when it began and where it stands."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from hub.cohort import CohortKey
from storage.contract import ClientInfo, Position

if TYPE_CHECKING:
    from channels.names import ResolvedChannel
    from hub.fanout import Fanout
    from hub.session import Session
    from hub.wheel import Timer


class Stage(Enum):
    """How far a session has come; a refused connect leaves it where nothing but its end is left."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"


NO_CHANNELS: frozenset[str] = frozenset()
"""One empty set for all sessions that have nothing to put into theirs."""


class Subscription:
    """One session's subscription.

    While all is well it is a member of a cohort and nobody looks at it. Whatever needs looking at (it has just come, it
    is catching up, its peer reads too slowly) makes it *loose*: then each publication is offered to it by itself.
    """

    __slots__ = (
        "catching_up",
        "channel",
        "expire_at",
        "expiry",
        "fanout",
        "info",
        "join_leave",
        "key",
        "latest",
        "loose",
        "needs_full",
        "position",
        "positioned",
        "presence",
        "pushes_join_leave",
        "recoverable",
        "server_side",
        "session",
        "skip_to",
        "token_refresh",
    )

    def __init__(self, session: Session, channel: ResolvedChannel, fanout: Fanout, key: CohortKey) -> None:
        self.session = session
        self.channel = channel
        self.fanout = fanout
        self.key = key
        self.info = ClientInfo(session.user, session.client)
        """What others see: in presence, in joins and leaves, on publications."""
        self.server_side = False
        self.positioned = False
        self.recoverable = False
        self.presence = False
        self.join_leave = False
        """Others are told that this session joined and left."""
        self.pushes_join_leave = False
        """This session is told of others."""
        self.expire_at = 0
        """Unix seconds; 0 = never."""
        self.token_refresh = False
        """The client refreshes it with subscription tokens."""
        self.expiry: Timer | None = None
        self.loose = False
        self.catching_up = False
        """Publications come from history; live ones wait there until it is reached."""
        self.position = Position(0, "")
        """How far the client is, while loose and positioned."""
        self.skip_to = 0
        """Publications up to this count of the fan-out came before the subscription."""
        self.needs_full = key.delta
        """It holds no base for deltas yet."""
        self.latest: bytes | None = None
        """The newest message of a conflated channel, waiting for the peer to read."""
