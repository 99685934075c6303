"""Namespaces: sets of channel options, as the operator writes them under ``channel.*``.

Names and meanings are Centrifugo's wherever it has the option; ``durable``, ``retention`` and ``conflate`` are ours. A
namespace keeps no history (neither kind is set), *recent* history (``history_size`` and ``history_ttl``, in the
broker) or *durable* history (``durable``, in the store). The last two exclude each other: a durable namespace counts
as having history everywhere, and is bounded by ``retention`` instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations
from typing import Literal, get_args

DELTA_TYPES = ("fossil",)
"""Delta types that the hub can make. A client that names another breaks the protocol (3501)."""

DataFormat = Literal["", "json", "json_object", "binary"]
RecoveryMode = Literal["stream", "cache"]

_NAMESPACE_NAME = re.compile(r"[-a-zA-Z0-9_.]{2,}")
_ZERO = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How much of a durable stream is kept; nothing set means for ever."""

    size: int = 0
    """Keep at most this many newest publications per channel; 0 = no bound."""
    age: timedelta = _ZERO
    """Keep only publications younger than this; 0 = no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """What the channels of one namespace can do and who may do it; everything is off until it is switched on."""

    presence: bool = False
    """Keep track of which sessions are subscribed right now."""
    join_leave: bool = False
    """Produce join and leave events."""
    force_push_join_leave: bool = False
    """Send join and leave events to every subscriber, also to those who did not ask."""
    history_size: int = 0
    """Recent history: how many publications to keep; set together with history_ttl."""
    history_ttl: timedelta = _ZERO
    """Recent history: how long after the last publication the stream is kept; set together with history_size."""
    history_meta_ttl: timedelta = _ZERO
    """Recent history: how long offset and epoch outlive the last use; 0 = channel.history_meta_ttl."""
    force_positioning: bool = False
    """Track the position of every subscriber; needs history."""
    allow_positioning: bool = False
    """Track the position of subscribers that ask for it; needs history."""
    force_recovery: bool = False
    """Every subscriber gets what it missed; needs history."""
    allow_recovery: bool = False
    """Subscribers that ask for it get what they missed; needs history."""
    force_recovery_mode: RecoveryMode = "stream"
    """What a recovering subscriber gets: "stream" = all it missed, "cache" = only the newest publication."""
    auto_cache_recover: bool = False
    """Give the newest publication to every new subscriber; needs force_recovery and force_recovery_mode = "cache"."""
    allowed_delta_types: tuple[str, ...] = ()
    """Delta types that subscribers may ask for; "fossil" is the only one."""
    delta_publish: bool = False
    """Treat every publication as one that may be sent as a delta."""
    allow_tags_filter: bool = False
    """Subscribers may send a filter over the tags of publications."""
    allow_subscribe_for_client: bool = False
    """Every authenticated client may subscribe."""
    allow_subscribe_for_anonymous: bool = False
    """With allow_subscribe_for_client: also clients without a user id."""
    allow_publish_for_client: bool = False
    """Every authenticated client may publish."""
    allow_publish_for_subscriber: bool = False
    """Clients that are subscribed to the channel may publish into it."""
    allow_publish_for_anonymous: bool = False
    """With either of the two above: also clients without a user id."""
    allow_presence_for_client: bool = False
    """Every authenticated client may read presence and its statistics."""
    allow_presence_for_subscriber: bool = False
    """Clients that are subscribed to the channel may read presence and its statistics."""
    allow_presence_for_anonymous: bool = False
    """With either of the two above: also clients without a user id."""
    allow_history_for_client: bool = False
    """Every authenticated client may read history."""
    allow_history_for_subscriber: bool = False
    """Clients that are subscribed to the channel may read history."""
    allow_history_for_anonymous: bool = False
    """With either of the two above: also clients without a user id."""
    allow_user_limited_channels: bool = False
    """Names like dialog#42,43 may be subscribed to by the users they list, and by nobody else without a token."""
    channel_regex: str = ""
    """A regular expression that must be found in the part of the name after the namespace; anchor it with ^ and $."""
    publication_data_format: DataFormat = ""
    """What a payload must be: "json", "json_object", "binary" (may be empty), or "" for anything that is not empty."""
    durable: bool = False
    """Keep history in the store: an acknowledged publication is committed. Excludes history_size and history_ttl."""
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    """How much durable history is kept (size, age); the default keeps it for ever."""
    conflate: bool = False
    """A subscriber that reads too slowly gets only the newest publication; excludes recovery and deltas."""

    @property
    def is_recent(self) -> bool:
        """Whether the broker keeps history."""
        return self.history_size > 0 and self.history_ttl > _ZERO

    @property
    def has_history(self) -> bool:
        """Whether there is history of either kind."""
        return self.durable or (self.history_size > 0 and self.history_ttl > _ZERO)

    def problems(self, path: str, *, default_meta_ttl: timedelta) -> Iterator[str]:
        """Yield a sentence for every mistake, each beginning with the setting's path."""
        yield from self._history_problems(path, default_meta_ttl)
        yield from self._recovery_problems(path)
        yield from self._value_problems(path)

    def _history_problems(self, path: str, default_meta_ttl: timedelta) -> Iterator[str]:
        negative = False
        for name in ("history_size", "history_ttl", "history_meta_ttl"):
            value = getattr(self, name)
            if value < type(value)():
                negative = True
                yield f"{path}.{name} is {value}, but cannot be negative"
        if self.retention.size < 0:
            yield f"{path}.retention.size is {self.retention.size}, but cannot be negative (0 = no bound)"
        if self.retention.age < _ZERO:
            yield f"{path}.retention.age is {self.retention.age}, but cannot be negative (0 = no bound)"
        if negative:
            return
        if self.durable:
            for name in ("history_size", "history_ttl", "history_meta_ttl"):
                if getattr(self, name):
                    yield (
                        f"{path}.{name} cannot be used together with durable = true:"
                        " durable history is bounded by retention.size and retention.age"
                    )
            return
        if self.retention != RetentionSettings():
            yield f"{path}.retention needs durable = true; recent history is bounded by history_size and history_ttl"
        if self.history_size and not self.history_ttl:
            yield f"{path}.history_size is set without history_ttl; set both or neither"
        if self.history_ttl and not self.history_size:
            yield f"{path}.history_ttl is set without history_size; set both or neither"
        if self.history_meta_ttl and self.history_meta_ttl < self.history_ttl:
            yield f"{path}.history_meta_ttl ({self.history_meta_ttl}) is below history_ttl ({self.history_ttl})"
        elif not self.history_meta_ttl and default_meta_ttl < self.history_ttl:
            yield (
                f"{path}.history_ttl ({self.history_ttl}) is above channel.history_meta_ttl ({default_meta_ttl});"
                f" raise that or set {path}.history_meta_ttl"
            )

    def _recovery_problems(self, path: str) -> Iterator[str]:
        for name in ("force_positioning", "allow_positioning", "force_recovery", "allow_recovery"):
            if not getattr(self, name):
                continue
            if not self.has_history:
                yield f"{path}.{name} needs history: set history_size and history_ttl, or durable = true"
            if self.conflate:
                yield f"{path}.{name} cannot be used together with conflate, which leaves publications out"
        if self.force_recovery_mode not in get_args(RecoveryMode):
            yield f'{path}.force_recovery_mode is "{self.force_recovery_mode}", but must be "stream" or "cache"'
        if self.auto_cache_recover and not (self.force_recovery and self.force_recovery_mode == "cache"):
            yield f'{path}.auto_cache_recover needs force_recovery = true and force_recovery_mode = "cache"'
        if self.conflate and self.allowed_delta_types:
            yield f"{path}.allowed_delta_types cannot be used together with conflate, which breaks the chain of deltas"

    def _value_problems(self, path: str) -> Iterator[str]:
        for delta_type in self.allowed_delta_types:
            if delta_type not in DELTA_TYPES:
                yield f'{path}.allowed_delta_types has the unknown type "{delta_type}"; there is only "fossil"'
        if self.publication_data_format not in get_args(DataFormat):
            yield (
                f'{path}.publication_data_format is "{self.publication_data_format}",'
                ' but must be "json", "json_object", "binary" or empty'
            )
        if self.channel_regex:
            try:
                re.compile(self.channel_regex)
            except (re.error, RecursionError, OverflowError) as error:
                yield f'{path}.channel_regex "{self.channel_regex}" is not a regular expression: {error}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace(ChannelOptions):
    """A named set of channel options; its channels are those whose name begins with the name and the boundary."""

    name: str
    """At least two letters, digits, ``-``, ``_`` or ``.``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """The section ``channel`` of the settings."""

    without_namespace: ChannelOptions = field(default_factory=ChannelOptions)
    """Options of channels whose name has no namespace."""
    namespaces: tuple[Namespace, ...] = ()
    """Named sets of options; a channel of a namespace that is not here is refused with error 102."""
    history_meta_ttl: timedelta = timedelta(hours=720)
    """How long offset and epoch of recent history outlive the last use, where a namespace does not say."""
    publication_data_format: DataFormat = ""
    """What a payload must be, where a namespace does not say."""
    max_length: int = 255
    """The longest name of a channel, in characters; 1 to 4096. A longer one is refused with error 107."""
    private_prefix: str = "$"
    """Channels whose name begins with it need a subscription token; empty = there are none."""
    namespace_boundary: str = ":"
    """Ends the namespace within a channel's name; empty = there are no namespaces."""
    user_boundary: str = "#"
    """Begins the list of users within a channel's name; empty = there are no such channels."""
    user_separator: str = ","
    """Separates the users in that list; empty = the list is a single user."""

    def problems(self, path: str = "channel") -> Iterator[str]:
        """Yield a sentence for every mistake in this section, each beginning with the setting's path."""
        if self.history_meta_ttl <= _ZERO:
            yield f"{path}.history_meta_ttl is {self.history_meta_ttl}, but must be above 0"
        if not 1 <= self.max_length <= 4096:
            yield f"{path}.max_length is {self.max_length}, but must be between 1 and 4096"
        if self.publication_data_format not in get_args(DataFormat):
            yield (
                f'{path}.publication_data_format is "{self.publication_data_format}",'
                ' but must be "json", "json_object", "binary" or empty'
            )
        yield from self._mark_problems(path)
        yield from self.without_namespace.problems(f"{path}.without_namespace", default_meta_ttl=self.history_meta_ttl)
        seen: dict[str, int] = {}
        for index, namespace in enumerate(self.namespaces):
            here = f"{path}.namespaces[{index}]"
            name = namespace.name
            if not _NAMESPACE_NAME.fullmatch(name):
                yield f'{here}.name is "{name}", but must be two or more of letters, digits, "-", "_" and "."'
            elif self.namespace_boundary and self.namespace_boundary in name:
                yield f'{here}.name "{name}" contains {path}.namespace_boundary "{self.namespace_boundary}"'
            elif self.private_prefix and name.startswith(self.private_prefix):
                yield f'{here}.name "{name}" begins with {path}.private_prefix "{self.private_prefix}"'
            if name in seen:
                yield f'{here}.name "{name}" is already the name of {path}.namespaces[{seen[name]}]'
            seen.setdefault(name, index)
            yield from namespace.problems(here, default_meta_ttl=self.history_meta_ttl)

    def validate(self) -> None:
        """Raise ``ValueError`` with one sentence a line if anything in this section is wrong."""
        if problems := list(self.problems()):
            raise ValueError("\n".join(problems))

    def _mark_problems(self, path: str) -> Iterator[str]:
        marks = {
            name: mark
            for name in ("private_prefix", "namespace_boundary", "user_boundary", "user_separator")
            if (mark := getattr(self, name))
        }
        for name, mark in marks.items():
            if not (mark.isascii() and mark.isprintable()):
                yield f"{path}.{name} must be printable ASCII characters, or empty"
        for (name, mark), (other_name, other) in combinations(marks.items(), 2):
            if mark == other:
                yield f'{path}.{name} and {path}.{other_name} are both "{mark}", but must differ'
        if self.namespaces and not self.namespace_boundary:
            yield f"{path}.namespace_boundary is empty, so that no channel can be in any of the namespaces"
