"""The configuration that acceptance tests start the hub with: one namespace for each kind of channel."""

from __future__ import annotations

import copy
from typing import Any

TOKEN_SECRET = "acceptance-token-secret-of-at-least-32-bytes"
APP = "tests.support.app:app"
"""What `--app` is given: the methods and handlers of tests/support/app.py."""
API_KEY = "acceptance-api-key-0123456789abcdef"

OPEN: dict[str, Any] = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
RECENT: dict[str, Any] = {"history_size": 1000, "history_ttl": "300s", "allow_history_for_subscriber": True}

NAMESPACES: list[dict[str, Any]] = [
    # Nothing kept, everyone may come in.
    {"name": "plain", **OPEN},
    # Everyone may come in, also without a user.
    {
        "name": "anon",
        **OPEN,
        "allow_subscribe_for_anonymous": True,
        "allow_publish_for_anonymous": True,
        "presence": True,
        "allow_presence_for_client": True,
        "allow_presence_for_anonymous": True,
        **RECENT,
        "allow_history_for_client": True,
        "allow_history_for_anonymous": True,
    },
    # Recent history; recovery for everyone, or when the client asks.
    {"name": "recent", **OPEN, **RECENT, "force_recovery": True},
    {"name": "ask", **OPEN, **RECENT, "allow_recovery": True, "allow_positioning": True},
    {"name": "short", **OPEN, "history_size": 5, "history_ttl": "300s", "force_recovery": True},
    # Positions without recovery.
    {"name": "position", **OPEN, **RECENT, "force_positioning": True},
    # Only the newest counts.
    {"name": "cache", **OPEN, **RECENT, "force_recovery": True, "force_recovery_mode": "cache"},
    {
        "name": "autocache",
        **OPEN,
        **RECENT,
        "force_recovery": True,
        "force_recovery_mode": "cache",
        "auto_cache_recover": True,
    },
    # Kept for ever, in the database.
    {"name": "durable", **OPEN, "durable": True, "force_recovery": True, "allow_history_for_subscriber": True},
    # Who is there.
    {
        "name": "room",
        **OPEN,
        "presence": True,
        "join_leave": True,
        "force_push_join_leave": True,
        "allow_presence_for_subscriber": True,
    },
    {"name": "lobby", **OPEN, "presence": True, "join_leave": True, "allow_presence_for_client": True},
    # Deltas and filters.
    {"name": "delta", **OPEN, **RECENT, "force_recovery": True, "allowed_delta_types": ["fossil"]},
    {"name": "alldelta", **OPEN, **RECENT, "allowed_delta_types": ["fossil"], "delta_publish": True},
    {"name": "tags", **OPEN, **RECENT, "force_recovery": True, "allow_tags_filter": True},
    # Variants of permission. Nothing is allowed in `closed` but by token.
    {"name": "closed", **RECENT, "presence": True, "allow_history_for_subscriber": False},
    {"name": "users", "allow_user_limited_channels": True, **RECENT},
    {"name": "read", "allow_subscribe_for_client": True},
    {"name": "write", "allow_publish_for_client": True},
    {"name": "member", "allow_subscribe_for_client": True, "allow_publish_for_subscriber": True, **RECENT},
    {
        "name": "outside",
        "allow_subscribe_for_client": True,
        "presence": True,
        "history_size": 10,
        "history_ttl": "300s",
        "allow_history_for_client": True,
        "allow_presence_for_client": True,
    },
    {"name": "digits", **OPEN, "channel_regex": "^[0-9]+$"},
    {"name": "object", **OPEN, "publication_data_format": "json_object"},
    # Served by the handlers of tests/support/app.py.
    {"name": "app", "history_size": 100, "history_ttl": "300s", "force_recovery": True},
    # Offset and epoch are soon forgotten.
    {"name": "meta", **OPEN, "history_size": 10, "history_ttl": "1s", "history_meta_ttl": "2s", "force_recovery": True},
    # Personal channels.
    {"name": "personal", **RECENT, "presence": True, "join_leave": True},
]


def default_config() -> dict[str, Any]:
    """A fresh copy of the configuration, for the caller to change."""
    return copy.deepcopy(
        {
            "client": {
                "token": {"hmac_secret_key": TOKEN_SECRET},
                "allowed_origins": ["http://allowed.example"],
            },
            "http_api": {"key": API_KEY},
            "channel": {"namespaces": NAMESPACES},
            "drain": {"window": "200ms", "timeout": "5s"},
        }
    )


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, dictionaries within dictionaries; neither argument is changed."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result
