"""Tests of hub.api.requests: what is a request and what is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hub.api import requests


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (requests.Publish, b"{}"),
        (requests.Publish, b'{"channel":""}'),
        (requests.Publish, b'{"channel":"x","tags":{"a":1}}'),
        (requests.Publish, b'{"channel":"x","version":-1}'),
        (requests.Publish, b'{"channel":"x","idempotency_key":"' + b"k" * 257 + b'"}'),
        (requests.Broadcast, b'{"channels":[]}'),
        (requests.Broadcast, b'{"channels":["x",""]}'),
        (requests.Subscribe, b'{"channel":"x"}'),
        (requests.Disconnect, b'{"user":""}'),
        (requests.Disconnect, b'{"user":"1","disconnect":{"code":2999}}'),
        (requests.Disconnect, b'{"user":"1","disconnect":{"code":5000}}'),
        (requests.HistoryRedact, b'{"channel":"x","offset":0}'),
        (requests.Channels, b'{"limit":-1}'),
        (requests.Batch, b'{"commands":{}}'),
        (requests.LegacyCommand, b"{}"),
    ],
)
def test_refused(kind: Any, body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=kind)


def test_defaults() -> None:
    asked = msgspec.json.decode(b'{"user":"1","unknown":[1]}', type=requests.Disconnect)
    assert (asked.client, asked.whitelist, asked.disconnect) == ("", [], None)
    publish = msgspec.json.decode(b'{"channel":"x","data": 1.0 }', type=requests.Publish)
    assert (bytes(publish.data).strip(), publish.skip_history, publish.version) == (b"1.0", False, 0)
