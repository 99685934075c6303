"""``hub check`` fetches a key set as ``hub serve`` will."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hub.cli import main
from tests.support.keyring import jwk


def config(folder: Path, token: dict[str, Any]) -> str:
    path = folder / "hub.json"
    path.write_text(json.dumps({"client": {"token": token}, "http_server": {"port": 0}}))
    return str(path)


def test_r3_check_trusts_the_configured_authority(
    tls_server: Any, certificate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls_server.serve(jwk("ES256", "a"))
    token: dict[str, Any] = {"jwks_public_endpoint": tls_server.url()}
    assert main(["check", "--config", config(tmp_path, token)]) == 1
    token["jwks"] = {"tls": {"enabled": True, "server_ca_pem": certificate}}
    assert main(["check", "--config", config(tmp_path, token)]) == 0
    assert f"ok      key set of client.token: 1 keys at {tls_server.url()}" in capsys.readouterr().out


def test_r3_check_does_not_show_the_query_of_the_address(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for keys, code in (((), 1), ((jwk("ES256", "a"),), 0)):
        server.serve(*keys, path="/keys?key=S3CRET")
        assert (
            main(["check", "--config", config(tmp_path, {"jwks_public_endpoint": server.url("/keys?key=S3CRET")})])
            == code
        )
    assert main(["check", "--config", config(tmp_path, {"jwks_public_endpoint": server.url("/no?key=S3CRET")})]) == 1
    output = capsys.readouterr()
    assert "status 404" in output.out
    assert "S3CRET" not in output.out + output.err


def test_r3_an_address_with_a_password_is_refused(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.url().replace("http://", "http://user:S3CRET@")
    assert main(["check", "--config", config(tmp_path, {"jwks_public_endpoint": url})]) == 2
    output = capsys.readouterr()
    assert (
        "client.token.jwks_public_endpoint (hub.json) is not usable: a URL with a user name or password" in output.err
    )
    assert "S3CRET" not in output.out + output.err
    assert server.requests == []
