from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.errors import BadChannel, ChannelError, PermissionDenied, UnknownChannel
from channels.names import ChannelRules
from channels.namespaces import ChannelOptions, ChannelSettings, Namespace
from channels.permissions import may_subscribe

SETTINGS = ChannelSettings(
    without_namespace=ChannelOptions(presence=True),
    namespaces=(
        Namespace(name="chat", join_leave=True),
        Namespace(name="dialog", allow_user_limited_channels=True),
        Namespace(name="digits", channel_regex="^[0-9]+$"),
        Namespace(name="bare", history_meta_ttl=timedelta(minutes=5), publication_data_format="binary"),
        Namespace(name="kept", durable=True),
    ),
    publication_data_format="json",
)


@pytest.fixture
def rules() -> ChannelRules:
    return ChannelRules(SETTINGS)


@pytest.mark.parametrize(
    ("name", "namespace", "private"),
    [
        ("news", "", False),
        ("chat:index", "chat", False),
        ("chat:a:b", "chat", False),
        ("chat:", "chat", False),
        ("$secret", "", True),
        ("$chat:secret", "chat", True),
        (":odd", "", False),
        ("with space!", "", False),
        ("chat$:x", None, False),
        ("CHAT:x", None, False),
        ("nope:x", None, False),
        ("né:x", None, False),
        ("$$chat:x", None, False),
    ],
)
def test_namespace_and_privacy(rules: ChannelRules, name: str, namespace: str | None, private: bool) -> None:
    if namespace is None:
        with pytest.raises(UnknownChannel):
            rules.resolve(name)
        return
    resolved = rules.resolve(name)
    assert (resolved.name, resolved.namespace_name, resolved.private) == (name, namespace, private)
    assert resolved.options.join_leave == (namespace == "chat")
    assert resolved.options.presence == (namespace == "")


@pytest.mark.parametrize("name", ["", "é", "chat:日本", "a\x00b", "tab\t", "line\n", "\x7f", "chat:" + "x" * 251])
def test_names_that_break_a_rule(rules: ChannelRules, name: str) -> None:
    with pytest.raises(BadChannel):
        rules.resolve(name)


def test_the_longest_name(rules: ChannelRules) -> None:
    assert rules.resolve("x" * 255).name == "x" * 255
    with pytest.raises(BadChannel, match="255"):
        rules.resolve("x" * 256)


@pytest.mark.parametrize(("name", "fits"), [("digits:42", True), ("digits:4a", False), ("$digits:42", True)])
def test_regex_applies_to_the_part_after_the_namespace(rules: ChannelRules, name: str, fits: bool) -> None:
    if fits:
        assert rules.resolve(name).namespace_name == "digits"
    else:
        with pytest.raises(BadChannel, match="channel_regex"):
            rules.resolve(name)


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("dialog#42", ["42"], ["", "4", "421", "dialog"]),
        ("dialog:x#42,43", ["42", "43"], ["", "42,43", "x"]),
        ("dialog:x#9#42", ["42"], ["9"]),
        ("dialog:x#", [], [""]),
        ("dialog:x#,7", ["7"], [""]),
    ],
)
def test_users_of_limited_channels(rules: ChannelRules, name: str, allowed: list[str], refused: list[str]) -> None:
    resolved = rules.resolve(name if ":" in name else name.replace("dialog", "dialog:"))
    assert resolved.user_limited
    assert [user for user in allowed + refused if rules.allows_user(resolved, user)] == allowed


def test_user_boundary_means_nothing_where_it_is_not_allowed(rules: ChannelRules) -> None:
    resolved = rules.resolve("chat:room#42")
    assert not resolved.user_limited
    assert not rules.allows_user(resolved, "42")


def test_without_separator_the_list_is_one_user() -> None:
    settings = ChannelSettings(without_namespace=ChannelOptions(allow_user_limited_channels=True), user_separator="")
    rules = ChannelRules(settings)
    assert rules.allows_user(rules.resolve("x#1,2"), "1,2")
    assert not rules.allows_user(rules.resolve("x#1,2"), "1")


def test_without_marks_a_name_is_just_a_name() -> None:
    rules = ChannelRules(
        ChannelSettings(
            without_namespace=ChannelOptions(allow_user_limited_channels=True),
            private_prefix="",
            namespace_boundary="",
            user_boundary="",
        )
    )
    resolved = rules.resolve("$a:b#c")
    assert (resolved.namespace_name, resolved.private, resolved.user_limited) == ("", False, False)
    with pytest.raises(BadChannel):
        rules.personal_channel("42")


def test_global_defaults_are_filled_in(rules: ChannelRules) -> None:
    assert rules.resolve("chat:x").options.history_meta_ttl == timedelta(hours=720)
    assert rules.resolve("chat:x").options.publication_data_format == "json"
    assert rules.resolve("bare:x").options.history_meta_ttl == timedelta(minutes=5)
    assert rules.resolve("bare:x").options.publication_data_format == "binary"
    assert rules.settings is SETTINGS
    assert rules.namespaces["kept"].history_meta_ttl == timedelta()
    assert rules.namespaces.keys() == {"", "chat", "dialog", "digits", "bare", "kept"}


def test_a_name_is_resolved_once(rules: ChannelRules) -> None:
    assert rules.resolve("chat:x") is rules.resolve("chat:x")


def test_personal_channels(rules: ChannelRules) -> None:
    assert rules.personal_channel("42") == "#42"
    assert rules.personal_channel("42", "dialog") == "dialog:#42"
    assert rules.allows_user(rules.resolve("dialog:#42"), "42")


@pytest.mark.parametrize("user", ["", "42,43", "a#b", "né", "x" * 300, "a\nb"])
def test_users_that_cannot_have_a_personal_channel(rules: ChannelRules, user: str) -> None:
    with pytest.raises(BadChannel):
        rules.personal_channel(user, "dialog")


def test_personal_channel_in_an_unknown_namespace(rules: ChannelRules) -> None:
    with pytest.raises(UnknownChannel):
        rules.personal_channel("42", "nope")


@given(st.text(max_size=300))
def test_any_text_is_resolved_or_refused(name: str) -> None:
    try:
        resolved = ChannelRules(SETTINGS).resolve(name)
    except ChannelError:
        return
    assert resolved.name == name
    assert name.isascii()
    assert 0 < len(name) <= 255


class TestPersonalChannels:
    """Where users have channels of their own, these are nobody else's, whatever else the namespace allows."""

    def test_they_are_limited_to_their_user(self) -> None:
        space = Namespace(name="pp", allow_subscribe_for_client=True)
        rules = ChannelRules(ChannelSettings(namespaces=(space,)), personal_namespace="pp")
        resolved = rules.resolve("pp:#alice")
        assert resolved.user_limited
        assert resolved.users == {"alice"}
        may_subscribe(resolved, user="alice")
        with pytest.raises(PermissionDenied):
            may_subscribe(resolved, user="bob")

    def test_other_channels_and_namespaces_are_as_before(self) -> None:
        spaces = (Namespace(name="pp", allow_subscribe_for_client=True), Namespace(name="qq"))
        rules = ChannelRules(ChannelSettings(namespaces=spaces), personal_namespace="pp")
        assert not rules.resolve("pp:dialog#alice").user_limited
        assert not rules.resolve("qq:#alice").user_limited
        assert not rules.resolve("#alice").user_limited
        assert not ChannelRules(ChannelSettings(namespaces=spaces)).resolve("pp:#alice").user_limited
        assert ChannelRules(ChannelSettings(), personal_namespace="").resolve("#alice").user_limited
