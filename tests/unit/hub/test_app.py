"""Tests of hub.app: an application's registry, and loading it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.app import App, AppNotLoaded, ClientContext, DisconnectClient, Refuse, load_app


async def method(_: ClientContext, data: bytes) -> bytes:
    return data


async def api_method(data: bytes) -> bytes:
    return data


def test_methods() -> None:
    app = App()
    assert app.rpc("a")(method) is method
    assert app.api("a")(api_method) is api_method
    assert (app.methods, app.api_methods) == ({"a": method}, {"a": api_method})
    with pytest.raises(ValueError, match="'a' is registered twice"):
        app.rpc("a")(method)
    with pytest.raises(ValueError, match="'a' is registered twice"):
        app.api("a")(api_method)


def test_refusals() -> None:
    refused = Refuse(1001, "please do not shout", temporary=True)
    assert refused.error == (1001, "please do not shout", True)
    assert DisconnectClient(4500, "go").disconnect == (4500, "go")


def test_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "good_hooks.py").write_text("from hub.app import App\napp = App()\nother = 3\n")
    (tmp_path / "broken_hooks.py").write_text("1 / 0\n")
    assert isinstance(load_app("good_hooks:app"), App)
    for path, text in (
        ("good_hooks", "package.module:object"),
        (":app", "package.module:object"),
        ("good_hooks:", "package.module:object"),
        ("no_such_hooks:app", "cannot import 'no_such_hooks'"),
        ("broken_hooks:app", "ZeroDivisionError"),
        ("good_hooks:other", "not a hub.app.App but int"),
        ("good_hooks:missing", "NoneType"),
    ):
        with pytest.raises(AppNotLoaded, match=text):
            load_app(path)
