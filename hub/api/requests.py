"""The requests of the server API, as their callers write them. Field names are Centrifugo's; ours are marked."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

from hub.protocol import EMPTY, Int32, StreamPosition, Uint64, Unsigned

NonEmpty = Annotated[str, Meta(min_length=1)]


class BoolValue(Struct):
    value: bool = False


class SubscribeOverride(Struct):
    presence: BoolValue | None = None
    join_leave: BoolValue | None = None
    force_recovery: BoolValue | None = None
    force_positioning: BoolValue | None = None
    force_push_join_leave: BoolValue | None = None


class Message(Unsigned, kw_only=True):
    """What publish and broadcast have in common."""

    data: Raw = EMPTY
    b64data: str = ""
    skip_history: bool = False
    tags: dict[str, str] | None = None
    idempotency_key: Annotated[str, Meta(max_length=256)] = ""
    delta: bool = False
    version: Uint64 = 0
    version_epoch: str = ""
    exclude_client: str = ""
    """Ours: client id of a session that is not to receive it."""


class Publish(Message, kw_only=True):
    channel: NonEmpty


class Broadcast(Message, kw_only=True):
    channels: Annotated[list[NonEmpty], Meta(min_length=1)]


class Subscribe(Unsigned, kw_only=True):
    user: NonEmpty
    channel: NonEmpty
    info: Raw = EMPTY
    b64info: str = ""
    client: str = ""
    session: str = ""
    data: Raw = EMPTY
    b64data: str = ""
    recover_since: StreamPosition | None = None
    expire_at: Uint64 = 0
    override: SubscribeOverride | None = None


class Unsubscribe(Struct, kw_only=True):
    user: NonEmpty
    channel: str = ""
    """Empty: all channels."""
    client: str = ""
    session: str = ""


class DisconnectCode(Struct):
    code: Annotated[int, Meta(ge=3000, le=4999)] = 3503
    reason: Annotated[str, Meta(max_length=123)] = "force disconnect"


class Disconnect(Struct, kw_only=True):
    user: NonEmpty
    client: str = ""
    session: str = ""
    whitelist: list[str] = []
    disconnect: DisconnectCode | None = None


class Refresh(Unsigned, kw_only=True):
    user: NonEmpty
    client: str = ""
    session: str = ""
    expired: bool = False
    expire_at: Uint64 = 0
    info: Raw = EMPTY


class Channel(Struct, kw_only=True):
    """presence, presence_stats and history_remove."""

    channel: NonEmpty


class History(Unsigned, kw_only=True):
    channel: NonEmpty
    limit: Int32 = 0
    since: StreamPosition | None = None
    reverse: bool = False
    since_time: Uint64 = 0
    """Ours: only publications of this time (milliseconds since the Unix epoch) or later."""
    until_time: Uint64 = 0
    """Ours: only publications before this time."""


class HistoryRedact(Struct, kw_only=True):
    """Ours: replace the payload of one publication, or with neither ``data`` nor ``b64data`` remove it."""

    channel: NonEmpty
    offset: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    data: Raw = EMPTY
    b64data: str = ""


class Paged(Struct, kw_only=True):
    limit: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """Ours: at most so many entries; 0 = all."""
    cursor: str = ""
    """Ours: the ``cursor`` of the page before."""


class Channels(Paged, kw_only=True):
    pattern: str = ""


class Connections(Paged, kw_only=True):
    """Ours: sessions of a user, of a channel, or both; of nobody in particular when neither is given."""

    user: str | None = None
    channel: str = ""


class Info(Struct):
    pass


class Rpc(Struct, kw_only=True):
    method: NonEmpty
    params: Raw = EMPTY


class Batch(Struct, kw_only=True):
    commands: list[dict[str, Raw]]
    parallel: bool = False


class LegacyCommand(Struct, kw_only=True):
    method: NonEmpty
    params: Raw = Raw(b"{}")
