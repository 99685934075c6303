"""The client protocol in JSON: commands in, replies and pushes out.

A message is one JSON object; messages in a frame are joined by one line feed, so none may contain one. Incoming envelopes
are decoded into typed structs while payloads stay the bytes they were (``Raw``); outgoing messages are joined from bytes.
Payloads have their line breaks taken out: valid JSON has none within its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import orjson
from msgspec import Meta, Raw, Struct

from hub.codes import Error, Unsubscribe
from hub.surrogates import decode
from storage.contract import ClientInfo, Position, Publication

PING = b"{}"
EMPTY = Raw(b"")
NULL = b"null"

Uint32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Uint64 = Annotated[int, Meta(ge=0)]
"""msgspec cannot check bounds above 63 bits: structs with such fields are ``Unsigned``."""
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class Unsigned(Struct):
    """A struct with ``Uint64`` fields: none may be above 64 bits."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) is int and value >= 2**64:
                raise ValueError(f"{name} has more than 64 bits")


def bounded(number: int) -> int:
    """A number that homes of history can hold; no offset, time or version is above it."""
    return min(number, 2**63 - 1)


class StreamPosition(Unsigned):
    offset: Uint64 = 0
    epoch: str = ""

    def position(self) -> Position:
        return Position(bounded(self.offset), self.epoch)


class SubscribeRequest(StreamPosition):
    channel: str = ""
    token: str = ""
    recover: bool = False
    data: Raw = EMPTY
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    tf: Raw = EMPTY
    flag: Int64 = 0
    type: Int32 = 0


class ConnectRequest(Struct):
    token: str = ""
    data: Raw = EMPTY
    subs: dict[str, SubscribeRequest] | None = None
    name: str = ""
    version: str = ""
    headers: dict[str, str] | None = None


class RefreshRequest(Struct):
    token: str = ""


class SubRefreshRequest(Struct):
    channel: str = ""
    token: str = ""


class ChannelRequest(Struct):
    """unsubscribe, presence and presence_stats."""

    channel: str = ""


class PublishRequest(Struct):
    channel: str = ""
    data: Raw = EMPTY
    exclude_client: bool = False
    """Ours: spare the sender its own publication."""


class HistoryRequest(Unsigned):
    channel: str = ""
    limit: Int32 = 0
    since: StreamPosition | None = None
    reverse: bool = False
    since_time: Uint64 = 0
    """Ours: only publications of this time (milliseconds since the Unix epoch) or later."""
    until_time: Uint64 = 0
    """Ours: only publications before this time."""


class RpcRequest(Struct):
    data: Raw = EMPTY
    method: str = ""


class SendRequest(Struct):
    data: Raw = EMPTY


class PingRequest(Struct):
    pass


class Command(Struct):
    """One message of a client. The first field that is set, in this order, is what it asks for."""

    id: Uint32 = 0
    connect: ConnectRequest | None = None
    ping: PingRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    publish: PublishRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    rpc: RpcRequest | None = None
    send: SendRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None


_decoder = msgspec.json.Decoder(Command)
_raw_decoder = msgspec.json.Decoder(Raw)


class BadMessage(Exception):
    """A message is not what the protocol allows; the text says why."""


def decode_command(line: bytes) -> Command:
    """Decode one message; raises ``BadMessage``. The caller has checked that ``line`` is UTF-8."""
    try:
        return decode(_decoder, line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadMessage(str(error)) from None


def one_line(data: bytes) -> bytes:
    """Take the line breaks out of valid JSON."""
    if b"\n" in data or b"\r" in data:
        return data.translate(None, b"\r\n")
    return data


def is_json(data: bytes) -> bool:
    """Whether ``data`` is exactly one JSON value in UTF-8."""
    try:
        data.decode()
        decode(_raw_decoder, data)
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        return False
    return True


def is_readable(publication: Publication) -> bool:
    """Whether JSON clients can be sent this publication: its payload is JSON, or empty."""
    return not publication.data or is_json(publication.data)


def encode_client_info(info: ClientInfo) -> bytes:
    encoded = b'{"user":' + orjson.dumps(info.user) + b',"client":' + orjson.dumps(info.client)
    if info.conn_info:
        encoded += b',"conn_info":' + info.conn_info
    if info.chan_info:
        encoded += b',"chan_info":' + info.chan_info
    return encoded + b"}"


def publication_tail(publication: Publication, *, time: bool = False) -> bytes:
    """What follows the payload in an encoded publication, without the closing brace."""
    tail = b""
    if publication.offset:
        tail += b',"offset":%d' % publication.offset
    if publication.tags:
        tail += b',"tags":' + orjson.dumps(publication.tags)
    if publication.info is not None:
        tail += b',"info":' + encode_client_info(publication.info)
    if time and publication.time:
        tail += b',"time":%d' % publication.time
    return tail


def encode_publication(publication: Publication, *, time: bool = False) -> bytes:
    """A publication whose payload is JSON, or empty."""
    if not publication.data:
        return b"{" + publication_tail(publication, time=time)[1:] + b"}"
    return b'{"data":' + publication.data + publication_tail(publication, time=time) + b"}"


def encode_text_publication(publication: Publication, data: bytes, *, delta: bool) -> bytes:
    """A publication for delta subscriptions: the payload travels as a JSON string."""
    flag = b',"delta":true' if delta else b""
    return b'{"data":' + orjson.dumps(data.decode()) + flag + publication_tail(publication) + b"}"


def push_head(channel: str) -> bytes:
    """The beginning of every push to ``channel``, up to its body."""
    return b'{"push":{"channel":' + orjson.dumps(channel) + b","


def publication_push(head: bytes, publication: Publication) -> bytes:
    return head + b'"pub":' + encode_publication(publication) + b"}}"


def join_push(head: bytes, info: ClientInfo) -> bytes:
    return head + b'"join":{"info":' + encode_client_info(info) + b"}}}"


def leave_push(head: bytes, info: ClientInfo) -> bytes:
    return head + b'"leave":{"info":' + encode_client_info(info) + b"}}}"


def unsubscribe_push(channel: str, why: Unsubscribe) -> bytes:
    body = orjson.dumps({"code": why.code, "reason": why.reason})
    return push_head(channel) + b'"unsubscribe":' + body + b"}}"


def subscribe_push(channel: str, result: Mapping[str, Any]) -> bytes:
    kept = ("recoverable", "epoch", "offset", "positioned", "data")
    body = {key: result[key] for key in kept if key in result}
    return push_head(channel) + b'"subscribe":' + orjson.dumps(body) + b"}}"


def message_push(data: bytes) -> bytes:
    return b'{"push":{"message":{"data":' + data + b"}}}"


def refresh_push(expires: bool, ttl: int) -> bytes:
    body = {"expires": True, "ttl": ttl} if expires else {}
    return b'{"push":{"refresh":' + orjson.dumps(body) + b"}}"


def reply(command_id: int, kind: bytes, result: bytes = b"{}") -> bytes:
    return b'{"id":%d,"%b":%b}' % (command_id, kind, result)


def error_body(error: Error) -> bytes:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.temporary:
        body["temporary"] = True
    return orjson.dumps(body)


def error_reply(command_id: int, error: Error) -> bytes:
    return b'{"id":%d,"error":%b}' % (command_id, error_body(error))


def fragment(data: bytes) -> orjson.Fragment:
    """Raw JSON to be embedded by orjson."""
    return orjson.Fragment(data)


def encode_publications(publications: Sequence[Publication], *, time: bool = False) -> bytes:
    """A JSON array of publications."""
    return b"[" + b",".join([encode_publication(each, time=time) for each in publications]) + b"]"
