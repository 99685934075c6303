from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from channels.errors import BadRequest, ChannelError, NotAvailable, PermissionDenied
from channels.names import ChannelRules, ResolvedChannel
from channels.namespaces import ChannelOptions, ChannelSettings
from channels.permissions import (
    Overrides,
    SubscriptionRequest,
    may_history,
    may_presence,
    may_publish,
    may_subscribe,
    subscription_mode,
)

RECENT: dict[str, Any] = {"history_size": 10, "history_ttl": timedelta(minutes=1)}
ASK_ALL = SubscriptionRequest(positioned=True, recoverable=True, join_leave=True, delta="fossil")


def channel(name: str = "news", **options: Any) -> ResolvedChannel:
    return ChannelRules(ChannelSettings(without_namespace=ChannelOptions(**options))).resolve(name)


def refusal(function: Callable[..., None], *args: Any, **kwargs: Any) -> type[ChannelError] | None:
    try:
        function(*args, **kwargs)
    except ChannelError as error:
        return type(error)
    return None


OPEN = {"allow_subscribe_for_client": True}
ANONYMOUS = {**OPEN, "allow_subscribe_for_anonymous": True}
LIMITED = {**ANONYMOUS, "allow_user_limited_channels": True}


@pytest.mark.parametrize(
    ("name", "options", "user", "how", "allowed"),
    [
        ("news", {}, "42", {}, False),
        ("news", {}, "42", {"token_granted": True}, True),
        ("news", {}, "42", {"insecure": True}, True),
        ("news", OPEN, "42", {}, True),
        ("news", OPEN, "", {}, False),
        ("news", OPEN, "", {"insecure": True}, True),
        ("news", ANONYMOUS, "", {}, True),
        ("news", {"allow_subscribe_for_anonymous": True}, "", {}, False),
        # Private: the token, and nothing else.
        ("$news", ANONYMOUS, "42", {}, False),
        ("$news", ANONYMOUS, "42", {"insecure": True}, False),
        ("$news", {}, "42", {"token_granted": True}, True),
        # User-limited: the list instead of allow_subscribe_for_client.
        ("d#42", LIMITED, "42", {}, True),
        ("d#42", LIMITED, "43", {}, False),
        ("d#42", LIMITED, "43", {"token_granted": True}, True),
        ("d#42", LIMITED, "43", {"insecure": True}, True),
        ("d#", LIMITED, "", {}, False),
        ("$d#42", LIMITED, "42", {}, False),
        ("d#42", OPEN, "43", {}, True),
    ],
)
def test_subscribe(name: str, options: dict[str, Any], user: str, how: dict[str, bool], allowed: bool) -> None:
    wanted = None if allowed else PermissionDenied
    assert refusal(may_subscribe, channel(name, **options), user=user, **how) is wanted


CASES = [
    ("publish", may_publish, {}),
    ("history", may_history, {"durable": True}),
    ("presence", may_presence, {"presence": True}),
]


@pytest.mark.parametrize(("kind", "check", "needed"), CASES)
@pytest.mark.parametrize(
    ("kinds", "user", "subscribed", "insecure", "allowed"),
    [
        ((), "42", True, False, False),
        ((), "", False, True, True),
        (("client",), "42", False, False, True),
        (("client",), "", False, False, False),
        (("client", "anonymous"), "", False, False, True),
        (("subscriber",), "42", True, False, True),
        (("subscriber",), "42", False, False, False),
        (("subscriber",), "", True, False, False),
        (("subscriber", "anonymous"), "", True, False, True),
        (("anonymous",), "", True, False, False),
    ],
)
def test_for_client_subscriber_anonymous(
    kind: str,
    check: Callable[..., None],
    needed: dict[str, Any],
    kinds: tuple[str, ...],
    user: str,
    subscribed: bool,
    insecure: bool,
    allowed: bool,
) -> None:
    options: dict[str, Any] = {f"allow_{kind}_for_{each}": True for each in kinds}
    got = refusal(check, channel(**needed, **options), user=user, subscribed=subscribed, insecure=insecure)
    assert got is (None if allowed else PermissionDenied)


def test_what_is_off_is_not_available_even_when_insecure() -> None:
    for check in (may_history, may_presence):
        assert refusal(check, channel(), user="42", subscribed=True, insecure=True) is NotAvailable


def test_nothing_is_on_by_itself() -> None:
    mode = subscription_mode(channel(), user="42", request=ASK_ALL)
    assert not any((mode.presence, mode.join_leave, mode.push_join_leave, mode.positioned, mode.recoverable))
    assert mode.delta == ""


def test_forced_on_for_a_subscription_that_asks_nothing() -> None:
    forced = channel(
        **RECENT, presence=True, join_leave=True, force_push_join_leave=True, force_recovery=True, allow_recovery=False
    )
    mode = subscription_mode(forced, user="")
    assert all((mode.presence, mode.join_leave, mode.push_join_leave, mode.positioned, mode.recoverable))
    assert not mode.cache
    assert not mode.auto_recover


def test_force_positioning_is_without_recovery() -> None:
    mode = subscription_mode(channel(**RECENT, force_positioning=True), user="42")
    assert (mode.positioned, mode.recoverable) == (True, False)


@pytest.mark.parametrize(
    ("options", "user", "positioned", "recoverable"),
    [
        ({**RECENT}, "42", False, False),
        ({**RECENT, "allow_positioning": True}, "42", True, False),
        ({**RECENT, "allow_recovery": True}, "42", True, True),
        ({"durable": True, "allow_recovery": True}, "", True, True),
        # Who may read the history as a subscriber may have it recovered.
        ({**RECENT, "allow_history_for_subscriber": True}, "42", True, True),
        ({**RECENT, "allow_history_for_subscriber": True}, "", False, False),
        ({**RECENT, "allow_history_for_client": True, "conflate": True}, "42", False, False),
        ({"allow_history_for_client": True}, "42", False, False),
    ],
)
def test_asked_for(options: dict[str, Any], user: str, positioned: bool, recoverable: bool) -> None:
    mode = subscription_mode(channel(**options), user=user, request=ASK_ALL)
    assert (mode.positioned, mode.recoverable) == (positioned, recoverable)
    silent = subscription_mode(channel(**options), user=user)
    assert (silent.positioned, silent.recoverable) == (False, False)


def test_join_leave_needs_the_option_and_the_permission() -> None:
    cases: list[tuple[dict[str, Any], str, bool]] = [
        ({"join_leave": True, "allow_presence_for_subscriber": True}, "42", True),
        ({"join_leave": True, "allow_presence_for_subscriber": True}, "", False),
        ({"join_leave": True}, "42", False),
        ({"allow_presence_for_subscriber": True}, "42", False),
    ]
    for options, user, told in cases:
        resolved = channel(**options)
        assert subscription_mode(resolved, user=user, request=ASK_ALL).push_join_leave is told
        assert not subscription_mode(resolved, user=user).push_join_leave


def test_delta_only_where_allowed_and_never_with_a_filter() -> None:
    resolved = channel(allowed_delta_types=("fossil",), allow_tags_filter=True)
    assert subscription_mode(resolved, user="", request=SubscriptionRequest(delta="fossil")).delta == "fossil"
    assert subscription_mode(resolved, user="", request=SubscriptionRequest(delta="xdelta")).delta == ""
    assert subscription_mode(resolved, user="").delta == ""
    both = SubscriptionRequest(delta="fossil", filtered=True)
    assert subscription_mode(resolved, user="", request=both).delta == ""


def test_filter_where_none_is_allowed() -> None:
    with pytest.raises(BadRequest):
        subscription_mode(channel(), user="42", request=SubscriptionRequest(filtered=True))


def test_cache_recovery() -> None:
    cache = {**RECENT, "force_recovery": True, "force_recovery_mode": "cache"}
    assert subscription_mode(channel(**cache), user="42").cache
    assert not subscription_mode(channel(**cache), user="42").auto_recover
    auto = channel(**cache, auto_cache_recover=True)
    assert subscription_mode(auto, user="42").auto_recover
    assert not subscription_mode(auto, user="42", overrides=Overrides(force_recovery=False)).auto_recover


def test_overrides_win_in_both_directions() -> None:
    on = Overrides(
        presence=True, join_leave=True, force_push_join_leave=True, force_positioning=True, force_recovery=True
    )
    off = Overrides(
        presence=False, join_leave=False, force_push_join_leave=False, force_positioning=False, force_recovery=False
    )
    everything: dict[str, Any] = dict.fromkeys(
        ("presence", "join_leave", "force_push_join_leave", "force_recovery"), True
    )
    for overrides, options, wanted in [(on, {}, True), (off, everything, False)]:
        mode = subscription_mode(channel(**RECENT, **options), user="42", overrides=overrides)
        got = (mode.presence, mode.join_leave, mode.push_join_leave, mode.positioned, mode.recoverable)
        assert got == (wanted,) * 5


def test_no_override_makes_history() -> None:
    mode = subscription_mode(channel(), user="42", overrides=Overrides(force_recovery=True, force_positioning=True))
    assert (mode.positioned, mode.recoverable) == (False, False)


def test_who_does_not_announce_itself_may_still_be_told_of_others() -> None:
    resolved = channel(join_leave=True, force_push_join_leave=True)
    mode = subscription_mode(resolved, user="42", overrides=Overrides(join_leave=False))
    assert (mode.join_leave, mode.push_join_leave) == (False, True)
