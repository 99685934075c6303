"""Who may do what on a channel, and what a subscription gets: pure decisions over options, no state.

The order in which permissions are asked is the protocol's: for subscribing a token, then the list of users in the
name, then the namespace's options, then ``client.insecure``; for the rest the options for clients, for subscribers,
then ``insecure``. An application's own handler stands where the reference has its proxies, that is with the caller.
"""

from __future__ import annotations

from msgspec import Struct

from channels.errors import BadRequest, NotAvailable, PermissionDenied
from channels.names import ResolvedChannel
from channels.namespaces import ChannelOptions


def may_subscribe(resolved: ResolvedChannel, *, user: str, token_granted: bool = False, insecure: bool = False) -> None:
    """Return if ``user`` ("" = anonymous) may subscribe; ``token_granted``: a valid token for this channel was shown.

    Raises ``PermissionDenied``. A private channel needs the token even when the hub is insecure. On a user-limited
    channel the list of users replaces ``allow_subscribe_for_client``.
    """
    if token_granted:
        return
    if resolved.private:
        raise PermissionDenied("a private channel needs a subscription token")
    options = resolved.options
    if resolved.user_limited:
        if user and user in resolved.users:
            return
    elif options.allow_subscribe_for_client and (user or options.allow_subscribe_for_anonymous):
        return
    if not insecure:
        raise PermissionDenied("subscribing to this channel is not allowed")


def may_publish(resolved: ResolvedChannel, *, user: str, subscribed: bool, insecure: bool = False) -> None:
    """Return if a client may publish; ``subscribed``: it is subscribed to the channel. Raises ``PermissionDenied``."""
    options = resolved.options
    if not _allowed(
        user,
        subscribed,
        for_client=options.allow_publish_for_client,
        for_subscriber=options.allow_publish_for_subscriber,
        for_anonymous=options.allow_publish_for_anonymous,
        insecure=insecure,
    ):
        raise PermissionDenied("publishing into this channel is not allowed")


def may_history(resolved: ResolvedChannel, *, user: str, subscribed: bool, insecure: bool = False) -> None:
    """Return if a client may read history. Raises ``NotAvailable`` if there is none, else ``PermissionDenied``."""
    if not resolved.options.has_history:
        raise NotAvailable("the channel keeps no history")
    if not _history_allowed(resolved.options, user, subscribed, insecure):
        raise PermissionDenied("reading the history of this channel is not allowed")


def may_presence(resolved: ResolvedChannel, *, user: str, subscribed: bool, insecure: bool = False) -> None:
    """Return if a client may read presence. Raises ``NotAvailable`` if it is not kept, else ``PermissionDenied``."""
    if not resolved.options.presence:
        raise NotAvailable("the channel keeps no presence")
    if not _presence_allowed(resolved.options, user, subscribed, insecure):
        raise PermissionDenied("reading the presence of this channel is not allowed")


class SubscriptionRequest(Struct, frozen=True):
    """What a client asks of its subscription."""

    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    """A type of ``namespaces.DELTA_TYPES``, or empty."""
    filtered: bool = False
    """A tags filter came with the request."""


class Overrides(Struct, frozen=True):
    """Options that a token or the server API sets for one subscription; ``None`` = as in the namespace."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_positioning: bool | None = None
    force_recovery: bool | None = None


class SubscriptionMode(Struct, frozen=True):
    """What a subscription gets."""

    presence: bool
    """The session is entered in presence."""
    join_leave: bool
    """The session's coming and going is published."""
    push_join_leave: bool
    """It is told of the coming and going of others."""
    positioned: bool
    """Its position is tracked; always so when it is recoverable."""
    recoverable: bool
    cache: bool
    """Recovery gives the newest publication instead of all that was missed."""
    auto_recover: bool
    """It recovers (in cache mode) without being asked."""
    delta: str
    """Delta type, or empty."""
    conflate: bool
    """When the session reads too slowly, keep only the newest publication for it."""


NO_REQUEST = SubscriptionRequest()
NO_OVERRIDES = Overrides()


def subscription_mode(
    resolved: ResolvedChannel,
    *,
    user: str,
    request: SubscriptionRequest = NO_REQUEST,
    overrides: Overrides = NO_OVERRIDES,
    insecure: bool = False,
) -> SubscriptionMode:
    """Decide what a subscription that is allowed gets; a server-side one has no ``request``.

    A wish that is not allowed is left out silently, as clients expect. Raises ``BadRequest`` for a tags filter where
    none are allowed. Whatever is asked or overridden, there is no positioning and no recovery without history or with
    ``conflate``, and no delta together with a filter: a chain of deltas has no holes.
    """
    options = resolved.options
    if request.filtered and not options.allow_tags_filter:
        raise BadRequest("tags filters are not allowed on this channel")
    join_leave = _override(overrides.join_leave, options.join_leave)
    # The permissions to read are asked as if the subscription were there already.
    push = _override(overrides.force_push_join_leave, options.force_push_join_leave) or (
        request.join_leave and (join_leave or options.join_leave) and _presence_allowed(options, user, True, insecure)
    )
    positioned = recoverable = False
    if options.has_history and not options.conflate:
        history = _history_allowed(options, user, True, insecure)
        recoverable = _override(overrides.force_recovery, options.force_recovery) or (
            request.recoverable and (options.allow_recovery or history)
        )
        positioned = (
            recoverable
            or _override(overrides.force_positioning, options.force_positioning)
            or (request.positioned and (options.allow_positioning or history))
        )
    cache = options.force_recovery_mode == "cache"
    delta = request.delta if request.delta in options.allowed_delta_types and not request.filtered else ""
    return SubscriptionMode(
        presence=_override(overrides.presence, options.presence),
        join_leave=join_leave,
        push_join_leave=push,
        positioned=positioned,
        recoverable=recoverable,
        cache=cache,
        auto_recover=options.auto_cache_recover and cache and recoverable,
        delta="" if options.conflate else delta,
        conflate=options.conflate,
    )


def _override(value: bool | None, default: bool) -> bool:
    return default if value is None else value


def _allowed(
    user: str, subscribed: bool, *, for_client: bool, for_subscriber: bool, for_anonymous: bool, insecure: bool
) -> bool:
    if (for_client or (for_subscriber and subscribed)) and (user or for_anonymous):
        return True
    return insecure


def _history_allowed(options: ChannelOptions, user: str, subscribed: bool, insecure: bool) -> bool:
    return _allowed(
        user,
        subscribed,
        for_client=options.allow_history_for_client,
        for_subscriber=options.allow_history_for_subscriber,
        for_anonymous=options.allow_history_for_anonymous,
        insecure=insecure,
    )


def _presence_allowed(options: ChannelOptions, user: str, subscribed: bool, insecure: bool) -> bool:
    return _allowed(
        user,
        subscribed,
        for_client=options.allow_presence_for_client,
        for_subscriber=options.allow_presence_for_subscriber,
        for_anonymous=options.allow_presence_for_anonymous,
        insecure=insecure,
    )
