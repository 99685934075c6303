"""Names of channels: which namespace a channel is in, whether its name is allowed, and whom it belongs to.

``$ns:dialog#42,43`` is private (``$``), in the namespace ``ns``, and limited to the users 42 and 43 if the namespace
allows user-limited channels. The server API obeys the same rules as clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

from msgspec import Struct

from channels.errors import BadChannel, UnknownChannel
from channels.namespaces import ChannelOptions, ChannelSettings

CACHED_NAMES = 16_384
"""How many resolved names are remembered. Strangers choose names, hence the bound; refused ones are not remembered."""


class ResolvedChannel(Struct, frozen=True, gc=False, eq=False):
    """A channel's name, taken apart."""

    name: str
    namespace_name: str
    """Empty for a channel without a namespace."""
    options: ChannelOptions
    """Those of the namespace; what it leaves to ``channel.*`` is filled in."""
    private: bool
    """Subscribing needs a token, whatever the options allow."""
    user_limited: bool
    """Only ``users`` may subscribe without a token."""
    users: frozenset[str] = frozenset()
    """The users that a user-limited channel lists."""


class ChannelRules:
    """Resolves channel names by one set of settings, which must be valid; fast for names seen lately."""

    __slots__ = ("_namespaces", "_personal_namespace", "_settings", "resolve")

    resolve: Callable[[str], ResolvedChannel]
    """Take a name apart; raises ``BadChannel``, or ``UnknownChannel`` if its namespace is not configured."""

    def __init__(self, settings: ChannelSettings, *, personal_namespace: str | None = None) -> None:
        """``personal_namespace`` is where users have channels of their own, which are then nobody else's."""
        self._settings = settings
        self._personal_namespace = personal_namespace
        self._namespaces: dict[str, tuple[ChannelOptions, re.Pattern[str] | None]] = {
            "": self._prepare(settings.without_namespace)
        }
        for namespace in settings.namespaces:
            self._namespaces[namespace.name] = self._prepare(namespace)
        self.resolve = lru_cache(maxsize=CACHED_NAMES)(self._resolve)

    @property
    def settings(self) -> ChannelSettings:
        return self._settings

    @property
    def namespaces(self) -> dict[str, ChannelOptions]:
        """The options in force, by namespace name; "" is for channels without a namespace."""
        return {name: options for name, (options, _) in self._namespaces.items()}

    def allows_user(self, resolved: ResolvedChannel, user: str) -> bool:
        """Whether the name of a user-limited channel lists this user. The anonymous user ("") is never listed."""
        return user != "" and user in resolved.users

    def personal_channel(self, user: str, namespace: str = "") -> str:
        """The name of a user's personal channel, ``#user`` or ``namespace:#user``.

        Raises ``BadChannel`` if the user id cannot be part of a name or would make the channel another user's as well,
        ``UnknownChannel`` if there is no such namespace.
        """
        settings = self._settings
        if not user or not settings.user_boundary:
            raise BadChannel("there is no personal channel without a user id and a user boundary")
        for mark in (settings.user_boundary, settings.user_separator):
            if mark and mark in user:
                raise BadChannel(f'a user id that contains "{mark}" cannot have a personal channel')
        prefix = namespace + settings.namespace_boundary if namespace else ""
        return self.resolve(prefix + settings.user_boundary + user).name

    def _prepare(self, options: ChannelOptions) -> tuple[ChannelOptions, re.Pattern[str] | None]:
        if not options.durable and options.history_meta_ttl == timedelta():
            options = replace(options, history_meta_ttl=self._settings.history_meta_ttl)
        if not options.publication_data_format:
            options = replace(options, publication_data_format=self._settings.publication_data_format)
        return options, re.compile(options.channel_regex) if options.channel_regex else None

    def _resolve(self, channel: str) -> ResolvedChannel:
        settings = self._settings
        if not channel:
            raise BadChannel("a channel's name cannot be empty")
        if len(channel) > settings.max_length:
            raise BadChannel(f"a channel's name has at most {settings.max_length} characters")
        private = settings.private_prefix != "" and channel.startswith(settings.private_prefix)
        namespace, rest = "", channel
        if settings.namespace_boundary:
            stripped = channel.removeprefix(settings.private_prefix) if private else channel
            head, boundary, tail = stripped.partition(settings.namespace_boundary)
            if boundary:
                namespace, rest = head, tail
        found = self._namespaces.get(namespace)
        if found is None:
            # The namespace is not repeated in the text: it is a stranger's and may be anything.
            raise UnknownChannel("the channel's namespace is not configured")
        options, regex = found
        if not (channel.isascii() and channel.isprintable()):
            raise BadChannel("a channel's name consists of printable ASCII characters")
        if regex is not None and regex.search(rest) is None:
            raise BadChannel("the channel's name does not match the channel_regex of its namespace")
        boundary = settings.user_boundary
        personal = namespace == self._personal_namespace and rest.startswith(boundary)
        limited = bool(boundary) and boundary in channel and (options.allow_user_limited_channels or personal)
        return ResolvedChannel(
            name=channel,
            namespace_name=namespace,
            options=options,
            private=private,
            user_limited=limited,
            users=self._users(channel) if limited else frozenset(),
        )

    def _users(self, channel: str) -> frozenset[str]:
        listed = channel.rpartition(self._settings.user_boundary)[2]
        separator = self._settings.user_separator
        return frozenset(listed.split(separator) if separator else (listed,)) - {""}
