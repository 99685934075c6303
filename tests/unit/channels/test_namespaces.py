from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from channels.namespaces import ChannelOptions, ChannelSettings, Namespace, RetentionSettings

MINUTE = timedelta(minutes=1)
RECENT: dict[str, Any] = {"history_size": 10, "history_ttl": MINUTE}


def problems(**options: Any) -> list[str]:
    return list(ChannelSettings(without_namespace=ChannelOptions(**options)).problems())


def test_defaults_are_valid_and_allow_nothing() -> None:
    settings = ChannelSettings()
    settings.validate()
    for field in dataclasses.fields(ChannelOptions):
        value = getattr(settings.without_namespace, field.name)
        assert not value or field.name in ("force_recovery_mode", "retention")


@pytest.mark.parametrize(
    ("options", "has_history", "is_recent"),
    [
        ({}, False, False),
        (RECENT, True, True),
        ({"durable": True}, True, False),
        ({"history_size": 10}, False, False),
    ],
)
def test_kinds_of_history(options: dict[str, Any], has_history: bool, is_recent: bool) -> None:
    made = ChannelOptions(**options)
    assert (made.has_history, made.is_recent) == (has_history, is_recent)


@pytest.mark.parametrize(
    "options",
    [
        RECENT,
        {**RECENT, "force_recovery": True, "force_positioning": True, "history_meta_ttl": MINUTE},
        {**RECENT, "force_recovery": True, "force_recovery_mode": "cache", "auto_cache_recover": True},
        {"durable": True, "allow_recovery": True, "allow_positioning": True},
        {"durable": True, "retention": RetentionSettings(size=10, age=MINUTE), "conflate": True},
        {"allowed_delta_types": ("fossil",), "delta_publish": True, "channel_regex": "^[0-9]+$"},
        {"publication_data_format": "json_object"},
    ],
)
def test_valid_combinations(options: dict[str, Any]) -> None:
    assert problems(**options) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"history_size": 10}, "history_size is set without history_ttl"),
        ({"history_ttl": MINUTE}, "history_ttl is set without history_size"),
        ({"history_size": -1}, "history_size is -1, but cannot be negative"),
        ({"history_ttl": -MINUTE}, "history_ttl is -1 day, 23:59:00, but cannot be negative"),
        ({**RECENT, "history_meta_ttl": MINUTE / 2}, "history_meta_ttl (0:00:30) is below history_ttl"),
        ({"history_size": 1, "history_ttl": timedelta(days=31)}, "is above channel.history_meta_ttl"),
        ({"durable": True, "history_size": 1}, "history_size cannot be used together with durable"),
        ({"durable": True, "history_ttl": MINUTE}, "history_ttl cannot be used together with durable"),
        ({"durable": True, "history_meta_ttl": MINUTE}, "history_meta_ttl cannot be used together with durable"),
        ({"retention": RetentionSettings(size=1)}, "retention needs durable = true"),
        ({"durable": True, "retention": RetentionSettings(size=-1)}, "retention.size is -1"),
        ({"durable": True, "retention": RetentionSettings(age=-MINUTE)}, "retention.age is"),
        ({"force_recovery": True}, "force_recovery needs history"),
        ({"allow_recovery": True}, "allow_recovery needs history"),
        ({"force_positioning": True}, "force_positioning needs history"),
        ({"allow_positioning": True}, "allow_positioning needs history"),
        ({**RECENT, "conflate": True, "allow_recovery": True}, "allow_recovery cannot be used together with conflate"),
        ({"conflate": True, "allowed_delta_types": ("fossil",)}, "allowed_delta_types cannot be used together"),
        ({"force_recovery_mode": "best"}, 'force_recovery_mode is "best"'),
        ({**RECENT, "force_recovery": True, "auto_cache_recover": True}, "auto_cache_recover needs force_recovery"),
        ({"allowed_delta_types": ("fossil", "xdelta")}, 'unknown type "xdelta"'),
        ({"publication_data_format": "xml"}, 'publication_data_format is "xml"'),
        ({"channel_regex": "("}, 'channel_regex "(" is not a regular expression'),
    ],
)
def test_each_mistake_is_one_sentence_that_names_the_setting(options: dict[str, Any], said: str) -> None:
    (problem,) = problems(**options)
    assert problem.startswith("channel.without_namespace.")
    assert said in problem


def test_all_mistakes_are_told_at_once() -> None:
    settings = ChannelSettings(
        without_namespace=ChannelOptions(history_size=1),
        namespaces=(Namespace(name="chat", force_recovery=True),),
    )
    with pytest.raises(ValueError, match=r"without_namespace\.history_size[^\n]*\nchannel\.namespaces\[0\]\.force"):
        settings.validate()


@pytest.mark.parametrize("name", ["a", "", "a b", "né", "a:b", "a\n", "ab\n"])
def test_malformed_namespace_name(name: str) -> None:
    (problem,) = ChannelSettings(namespaces=(Namespace(name=name),)).problems()
    assert problem.startswith("channel.namespaces[0].name")


def test_duplicate_namespace_name() -> None:
    names = ("chat", "news", "chat")
    (problem,) = ChannelSettings(namespaces=tuple(Namespace(name=name) for name in names)).problems()
    assert problem == 'channel.namespaces[2].name "chat" is already the name of channel.namespaces[0]'


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_length": 0}, "channel.max_length is 0"),
        ({"max_length": 5000}, "channel.max_length is 5000"),
        ({"history_meta_ttl": timedelta()}, "channel.history_meta_ttl is 0:00:00"),
        ({"publication_data_format": "yaml"}, 'channel.publication_data_format is "yaml"'),
        ({"private_prefix": "#"}, "channel.private_prefix and channel.user_boundary are both"),
        ({"user_separator": "é"}, "channel.user_separator must be printable ASCII"),
        ({"namespace_boundary": ""}, "channel.namespace_boundary is empty"),
        ({"namespace_boundary": "."}, 'name "my.chat" contains channel.namespace_boundary'),
        ({"private_prefix": "my"}, 'name "my.chat" begins with channel.private_prefix'),
    ],
)
def test_mistakes_of_the_section_itself(settings: dict[str, Any], said: str) -> None:
    (problem,) = ChannelSettings(namespaces=(Namespace(name="my.chat"),), **settings).problems()
    assert said in problem


def test_marks_may_be_switched_off() -> None:
    ChannelSettings(private_prefix="", namespace_boundary="", user_boundary="", user_separator="").validate()
