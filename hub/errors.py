"""From what was raised below to what goes over the wire."""

from __future__ import annotations

from channels.errors import (
    BadChannel,
    BadRequest,
    ChannelError,
    NotAvailable,
    PermissionDenied,
    Unavailable,
    UnknownChannel,
    Unrecoverable,
)
from hub import codes
from hub.codes import Error

_ERRORS: dict[type[ChannelError], Error] = {
    UnknownChannel: codes.UNKNOWN_CHANNEL,
    BadChannel: codes.BAD_REQUEST,
    PermissionDenied: codes.PERMISSION_DENIED,
    NotAvailable: codes.NOT_AVAILABLE,
    BadRequest: codes.BAD_REQUEST,
    Unrecoverable: codes.UNRECOVERABLE_POSITION,
    Unavailable: codes.INTERNAL,
}


def error_of(refused: ChannelError) -> Error:
    """The protocol's error for a refusal."""
    return _ERRORS.get(type(refused), codes.INTERNAL)
