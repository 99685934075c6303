"""What a client makes of what it is sent: publications in order, deltas applied, positions kept, as an SDK does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from channels.delta import apply_delta
from tests.support.inprocess import Peer


@dataclass
class Seen:
    """One subscription as its client has seen it, from the reply or the push that began it."""

    result: dict[str, Any]
    command: int = 0
    """The id of the subscribe command."""
    publications: list[dict[str, Any]] = field(default_factory=list)
    """In order; ``data`` is the payload as text."""
    ended: int | None = None
    """The code of the unsubscribe push, -1 after an unsubscribe reply."""

    @property
    def start(self) -> int:
        return int(self.result.get("offset", 0))

    @property
    def offsets(self) -> list[int]:
        return [each["offset"] for each in self.publications if "offset" in each]

    @property
    def data(self) -> list[Any]:
        return [json.loads(each["data"]) for each in self.publications]

    @property
    def position(self) -> tuple[int, str]:
        """Offset and epoch that the client would recover from."""
        return (self.offsets[-1] if self.offsets else self.start), self.result.get("epoch", "")


def subscriptions(peer: Peer, channel: str, *, replies: dict[int, str]) -> list[Seen]:
    """All subscriptions of a peer to a channel, one after the other.

    ``replies`` maps the ids of its subscribe and unsubscribe commands for the channel to "subscribe" or "unsubscribe".
    """
    found: list[Seen] = []
    base = b""
    for line in b"\n".join(peer.transport.writes).split(b"\n"):
        message = json.loads(line)
        kind = replies.get(message.get("id", 0))
        if kind == "subscribe" and "subscribe" in message:
            assert not found or found[-1].ended is not None, "subscribed twice"
            found.append(Seen(message["subscribe"], message["id"]))
            base = b""
            for each in message["subscribe"].get("publications", ()):
                base = _take(found[-1], each, base)
        elif kind == "unsubscribe" and found and found[-1].ended is None:
            found[-1].ended = -1
        push = message.get("push", {})
        if push.get("channel") == channel:
            if "unsubscribe" in push:
                assert found[-1].ended is None, "unsubscribed twice"
                found[-1].ended = push["unsubscribe"]["code"]
            elif "pub" in push:
                assert found, "a publication before the reply"
                assert found[-1].ended is None, "a publication after the end"
                base = _take(found[-1], push["pub"], base)
    return found


def _take(seen: Seen, publication: dict[str, Any], base: bytes) -> bytes:
    if seen.result.get("delta"):
        text: bytes = publication["data"].encode()
        if publication.get("delta"):
            assert base, "a delta for a client that holds nothing"
            text = apply_delta(base, text)
    else:
        assert not publication.get("delta"), "a delta that was not asked for"
        text = json.dumps(publication["data"]).encode()
    seen.publications.append({**publication, "data": text.decode()})
    return text
