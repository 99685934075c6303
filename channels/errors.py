"""What the rules of channels refuse with; the running server maps each to a code of the protocol.

ChannelError
├── UnknownChannel      its namespace is not configured             (102)
├── BadChannel          its name breaks a rule; the text says which (107)
├── PermissionDenied    the rules do not allow it                   (103)
├── NotAvailable        the feature is off in its namespace         (108)
├── BadRequest          an argument is wrong; the text says which   (107)
├── Unrecoverable       the position asked for is of another stream (112)
└── Unavailable         broker or store out of reach: try again     (100)
"""

from __future__ import annotations


class ChannelError(Exception):
    """A request on a channel was refused."""


class UnknownChannel(ChannelError):
    """The channel's namespace is not configured."""


class BadChannel(ChannelError):
    """The channel's name is not valid."""


class PermissionDenied(ChannelError):
    """Not allowed."""


class NotAvailable(ChannelError):
    """The feature is not enabled for this channel."""


class BadRequest(ChannelError):
    """An argument of the request is not valid."""


class Unrecoverable(ChannelError):
    """The position belongs to another stream than the present one."""


class Unavailable(ChannelError):
    """What holds the channel is out of reach for now."""
