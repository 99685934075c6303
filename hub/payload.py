"""Payloads: checked against what the channel takes, and otherwise left alone."""

from __future__ import annotations

from channels.errors import BadRequest
from channels.namespaces import ChannelOptions
from hub.protocol import is_json, one_line


def checked_payload(options: ChannelOptions, data: bytes) -> bytes:
    """The payload as it is to be published; raises ``BadRequest`` if the channel does not take it.

    JSON has the line breaks between its tokens taken out, nothing else is ever changed.
    """
    wanted = options.publication_data_format
    if not data:
        if wanted != "binary":
            raise BadRequest("the payload is empty")
        return data
    if wanted in ("json", "json_object"):
        if not is_json(data):
            raise BadRequest("the channel takes JSON only")
        if wanted == "json_object" and not data.lstrip(b" \t\r\n").startswith(b"{"):
            raise BadRequest("the channel takes JSON objects only")
    if (b"\n" in data or b"\r" in data) and is_json(data):
        return one_line(data)
    return data
