from __future__ import annotations

from pathlib import Path

from hub.settings_docs import describe, page
from hub.settings_load import paths

DOCS = Path(__file__).resolve().parents[3] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    assert DOCS.read_text("utf-8") == page(), "run `make docs`"


def test_every_setting_is_described() -> None:
    described = {item.path for _, _, items in describe() for item in items}
    sections = {path for path, _, _ in describe()}
    assert {path for path, _ in paths()} <= described | sections
    assert "channel.namespaces[].history_ttl" in described
    assert all(item.meaning for _, _, items in describe() for item in items)


def test_durations_and_secrets_are_shown_as_one_writes_them() -> None:
    items = {item.path: item for _, _, items in describe() for item in items}
    assert items["client.ping_interval"].default == "`25s`"
    assert items["http_api.key"].kind == "secret"
    assert items["http_api.key"].default == '`""`'
    assert items["rate_limit.publish.rate"].default
