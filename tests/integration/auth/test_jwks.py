"""Key sets from a real server: rotation, storms of unknown keys, and endpoints that are down, slow, huge or wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from auth.errors import AuthError, KeyMissing, KeysUnavailable, TokenInvalid
from auth.issue import explain
from auth.jwks import MAX_ABSENT, MAX_THREADS
from auth.secret import Secret
from auth.settings import JWKSSettings, JWKSTLSSettings, TokenSettings
from auth.tokens import TokenVerifier
from tests.support.keyring import SECRET, jwk, private_key

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def token(kid: str | None, kind: str = "ES256", number: int = 0, *, algorithm: str = "", **claims: Any) -> str:
    headers = None if kid is None else {"kid": kid}
    key = private_key(kind, number)
    return jwt.encode({"sub": "42", **claims}, key, algorithm=algorithm or kind, headers=headers)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(server: Any, clock: Clock):
    made: list[TokenVerifier] = []

    def build(path: str = "/keys", *, jwks: dict[str, Any] | None = None, **settings: Any) -> TokenVerifier:
        section = TokenSettings(
            jwks_public_endpoint=server.url(path),
            jwks=JWKSSettings(**{"timeout": timedelta(seconds=10), **(jwks or {})}),
            **settings,
        )
        made.append(TokenVerifier(section, clock=lambda: NOW, monotonic=clock))
        return made[-1]

    yield build
    for verifier in made:
        await verifier.aclose()


Make = Callable[..., TokenVerifier]


async def test_keys_are_fetched_once_and_then_in_memory(server: Any, make: Make):
    server.serve(jwk("ES256", "a"), jwk("RSA", "b"), jwk("EdDSA", "c"))
    verifier = make()
    assert (await verifier.connection(token("a"))).user == "42"
    assert verifier.verify_connection(token("b", "RSA", algorithm="RS512")).user == "42"
    assert verifier.verify_subscription(token("c", "EdDSA", channel="x")).channel == "x"
    assert server.requests == ["/keys"]


async def test_the_steps_for_a_caller_who_does_not_want_to_wait(server: Any, make: Make):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    with pytest.raises(KeyMissing):
        verifier.verify_connection(token("a"))
    await verifier.fetch_keys(token("a"))
    assert verifier.verify_connection(token("a")).user == "42"
    await verifier.fetch_keys(token("a"))
    assert len(server.requests) == 1


async def test_many_at_once_cause_one_fetch(server: Any, make: Make):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    claims = await asyncio.gather(*(verifier.connection(token("a", n=number)) for number in range(200)))
    assert len(claims) == 200
    assert len(server.requests) == 1


async def test_a_waiter_who_leaves_does_not_stop_the_fetch_for_the_others(server: Any, make: Make):
    server.serve(jwk("ES256", "a"))
    good = server.answers["/keys"]
    server.answers["/keys"] = lambda handler: (server.release.wait(30), good(handler))
    verifier = make()
    leaving = asyncio.create_task(verifier.connection(token("a")))
    staying = asyncio.create_task(verifier.connection(token("a")))
    assert await asyncio.to_thread(server.asked.wait, 10)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    server.release.set()
    assert (await staying).user == "42"


async def test_rotation(server: Any, make: Make, clock: Clock):
    server.serve(jwk("ES256", "old"))
    verifier = make()
    await verifier.connection(token("old"))
    server.serve(jwk("ES256", "old"), jwk("ES256", "new", 1))
    with pytest.raises(KeysUnavailable):  # not again so soon; the client is to come back
        await verifier.connection(token("new", number=1))
    clock.now += 31
    assert (await verifier.connection(token("new", number=1))).user == "42"
    server.serve(jwk("ES256", "new", 1))
    clock.now += 601
    assert verifier.verify_connection(token("old")).user == "42"  # sets off the refresh, does not wait for it
    await settled(verifier)
    clock.now += 31
    with pytest.raises(TokenInvalid, match="not in the key set"):
        await verifier.connection(token("old"))


async def test_a_key_replaced_under_the_same_id(server: Any, make: Make, clock: Clock):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    await verifier.connection(token("a"))
    server.serve(jwk("ES256", "a", 1))
    clock.now += 601
    verifier.verify_connection(token("a"))
    await settled(verifier)
    with pytest.raises(TokenInvalid, match="signature"):
        verifier.verify_connection(token("a"))
    assert verifier.verify_connection(token("a", number=1)).user == "42"


async def test_a_storm_of_unknown_keys_causes_few_fetches(server: Any, make: Make, clock: Clock):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    await verifier.connection(token("a"))
    for _ in range(5):
        clock.now += 10
        tokens = [token(f"invented-{clock.now}-{number}", number=9) for number in range(50)]
        results = await asyncio.gather(*(verifier.connection(text) for text in tokens), return_exceptions=True)
        assert all(isinstance(result, KeysUnavailable | TokenInvalid) for result in results)
        assert verifier.verify_connection(token("a")).user == "42"
    assert len(server.requests) == 2  # 50 seconds, one fetch in 30


async def test_a_key_that_a_fetch_did_not_find_is_surely_unknown_until_the_next(server: Any, make: Make, clock: Clock):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    for _ in range(3):
        with pytest.raises(TokenInvalid, match="not in the key set"):
            await verifier.connection(token("b", number=1))
    assert len(server.requests) == 1
    clock.now += 31
    server.serve(jwk("ES256", "b", 1))
    assert (await verifier.connection(token("b", number=1))).user == "42"


async def test_what_is_remembered_of_unknown_keys_is_bounded(server: Any, make: Make):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    assert verifier.jwks is not None
    kids = [str(number) for number in range(MAX_ABSENT + 50)]
    await asyncio.gather(*(verifier.jwks.fetch(server.url(), kid) for kid in kids))
    assert len(server.requests) == 1
    assert len(verifier.jwks._endpoints[server.url()].absent) <= MAX_ABSENT


async def test_an_endpoint_that_is_down_is_a_temporary_trouble(
    server: Any, make: Make, answer_with: Any, clock: Clock, caplog: pytest.LogCaptureFixture
):
    server.answers["/keys"] = answer_with(b"", status=503)
    verifier = make()
    with pytest.raises(KeysUnavailable), caplog.at_level(logging.WARNING):
        await verifier.connection(token("a"))
    assert "status 503" in caplog.text
    with pytest.raises(KeysUnavailable):
        await verifier.connection(token("a"))
    assert len(server.requests) == 1
    server.serve(jwk("ES256", "a"))
    clock.now += 1.5
    assert (await verifier.connection(token("a"))).user == "42"


async def test_a_dead_endpoint_is_asked_less_and_less_often(server: Any, make: Make, answer_with: Any, clock: Clock):
    server.answers["/keys"] = answer_with(b"", status=500)
    verifier = make()
    for _ in range(300):
        clock.now += 1
        with pytest.raises(KeysUnavailable):
            await verifier.connection(token("a"))
    assert len(server.requests) <= 5 + 300 / 30 + 1
    assert verifier.jwks is not None
    assert verifier.jwks.failures == verifier.jwks.fetches == len(server.requests)


async def test_old_keys_serve_while_the_endpoint_is_down(server: Any, make: Make, answer_with: Any, clock: Clock):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    await verifier.connection(token("a"))
    server.answers["/keys"] = answer_with(b"<html>sorry</html>")
    for _ in range(5):
        clock.now += 700
        assert (await verifier.connection(token("a"))).user == "42"
        await settled(verifier)
    assert len(server.requests) == 6
    with pytest.raises(KeysUnavailable):
        await verifier.connection(token("b", number=1))


@pytest.mark.parametrize("answer", [b"", b"{}", b"nonsense", b'{"keys":5}', b"[" * 100_000, b"\xff" * 1000])
async def test_malformed_answers(server: Any, make: Make, answer_with: Any, answer: bytes):
    server.answers["/keys"] = answer_with(answer)
    with pytest.raises(KeysUnavailable):
        await make().connection(token("a"))


async def test_a_huge_answer(server: Any, make: Make, answer_with: Any):
    server.answers["/keys"] = answer_with(b'{"keys":[]}' + b" " * 5000)
    with pytest.raises(KeysUnavailable):
        await make(jwks={"max_size": 4096}).connection(token("a"))


async def test_a_slow_endpoint_does_not_stop_the_loop(server: Any, make: Make):
    """While the endpoint says nothing, others are served; the fetch gives up after its timeout."""
    server.answers["/keys"] = lambda handler: server.release.wait(30)
    verifier = make(jwks={"timeout": timedelta(seconds=0.3)}, hmac_secret_key=Secret(SECRET))
    waiting = asyncio.create_task(verifier.connection(token("a")))
    assert await asyncio.to_thread(server.asked.wait, 10)
    assert verifier.verify_connection(jwt.encode({"sub": "7"}, SECRET, algorithm="HS256")).user == "7"
    assert not waiting.done()
    with pytest.raises(KeysUnavailable):
        await waiting


async def test_fetches_that_hang_are_not_piled_up(
    server: Any, make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """A thread stuck where no timeout reaches (name resolution) is left behind, but only so many of them."""
    started: list[str] = []

    def stuck(url: str, **options: Any) -> bytes:
        started.append(url)
        server.release.wait(30)
        raise AssertionError("released only at the end")

    monkeypatch.setattr("auth.jwks._get_and_parse", stuck)
    monkeypatch.setattr("auth.jwks.in_daemon_thread", impatient)
    verifier = make()
    for _ in range(MAX_THREADS + 3):
        clock.now += 100
        with pytest.raises(KeysUnavailable):
            await verifier.connection(token("a"))
    assert len(started) == MAX_THREADS


@pytest.mark.timeout(60)
async def test_r8_an_endpoint_that_dripped_is_asked_again_when_it_is_well(server: Any, make: Make, clock: Clock):
    """Fetches end with their timeout, so that none is left behind that later ones would have to wait for."""

    def drip(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not server.release.wait(0.02):
            handler.wfile.write(b"x")

    server.answers["/keys"] = drip
    verifier = make(jwks={"timeout": timedelta(seconds=0.2)})
    for _ in range(MAX_THREADS + 2):
        clock.now += 100
        with pytest.raises(KeysUnavailable):
            await verifier.connection(token("a"))
    assert len(server.requests) == MAX_THREADS + 2
    server.serve(jwk("ES256", "a"))
    clock.now += 100
    assert (await verifier.connection(token("a"))).user


async def impatient(work: Any, *, timeout: float, done: Any) -> Any:
    from auth.fetch import in_daemon_thread

    return await in_daemon_thread(work, timeout=0.05, done=done)


async def test_closing_stops_a_fetch(server: Any, make: Make):
    server.answers["/keys"] = lambda handler: server.release.wait(30)
    verifier = make()
    waiting = asyncio.create_task(verifier.connection(token("a")))
    assert await asyncio.to_thread(server.asked.wait, 10)
    await verifier.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_tokens_without_a_key_id(server: Any, make: Make):
    server.serve(jwk("ES256", "a"), jwk("RSA", "b"), jwk("RSA", None, 1))
    verifier = make()
    assert (await verifier.connection(token(None))).user == "42"
    with pytest.raises(TokenInvalid):  # two keys would do: which one is not guessed
        await verifier.connection(token(None, "RSA", algorithm="RS256"))
    assert len(server.requests) == 1


async def test_a_key_does_only_what_the_set_allows(server: Any, make: Make):
    server.serve(jwk("RSA", "narrow", alg="RS256"), jwk("RSA", "enc", 1, use="enc"))
    verifier = make()
    assert (await verifier.connection(token("narrow", "RSA", algorithm="RS256"))).user == "42"
    for text in (token("narrow", "RSA", algorithm="RS512"), token("enc", "RSA", 1, algorithm="RS256"), token("narrow")):
        with pytest.raises(AuthError):
            await verifier.connection(text)


async def test_a_wrong_signature_asks_nobody(server: Any, make: Make, clock: Clock):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    await verifier.connection(token("a"))
    clock.now += 100
    with pytest.raises(TokenInvalid, match="signature"):
        await verifier.connection(token("a", number=5))
    assert len(server.requests) == 1


async def test_explaining_a_token_of_a_key_set(server: Any, make: Make):
    server.serve(jwk("ES256", "a"))
    assert (await explain(token("a"), make())).valid
    del server.answers["/keys"]
    explained = await explain(token("a"), make())
    assert not explained.valid
    assert "cannot be checked now" in explained.reason


@pytest.mark.parametrize("given", ["text", "text of an environment file", "path"])
async def test_a_private_certificate_authority(tls_server: Any, certificate: str, tmp_path: Path, given: str):
    file = tmp_path / "ca.pem"
    file.write_text(certificate)
    pem = {"text": certificate, "path": str(file)}.get(given) or certificate.replace("\n", "\\n")
    tls_server.serve(jwk("ES256", "a"))
    tls = JWKSTLSSettings(enabled=True, server_ca_pem=pem)
    section = TokenSettings(jwks_public_endpoint=tls_server.url(), jwks=JWKSSettings(tls=tls))
    verifier = TokenVerifier(section, clock=lambda: NOW)
    assert (await verifier.connection(token("a"))).user == "42"


async def test_an_unknown_certificate_authority_is_not_trusted(tls_server: Any):
    tls_server.serve(jwk("ES256", "a"))
    verifier = TokenVerifier(TokenSettings(jwks_public_endpoint=tls_server.url()), clock=lambda: NOW)
    with pytest.raises(KeysUnavailable):
        await verifier.connection(token("a"))
    assert tls_server.requests == []


async def test_old_keys_set_off_one_refresh_at_a_time(server: Any, make: Make, clock: Clock):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    await verifier.connection(token("a"))
    clock.now += 601
    for _ in range(20):
        verifier.verify_connection(token("a"))
    await settled(verifier)
    assert len(server.requests) == 2


async def test_old_keys_serve_a_program_without_a_loop(server: Any, make: Make, clock: Clock):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    await verifier.connection(token("a"))
    clock.now += 601
    assert (await asyncio.to_thread(verifier.verify_connection, token("a"))).user == "42"
    assert len(server.requests) == 1


async def test_a_fetch_within_the_cooldown_does_nothing(server: Any, make: Make):
    server.serve(jwk("ES256", "a"))
    verifier = make()
    assert verifier.jwks is not None
    for kid in ("a", "b", "c"):
        await verifier.jwks.fetch(server.url(), kid)
    assert len(server.requests) == 1


async def test_a_provider_that_withdraws_all_keys_is_believed_and_told(
    server: Any, make: Make, caplog: pytest.LogCaptureFixture
):
    server.serve()
    with pytest.raises(TokenInvalid), caplog.at_level(logging.WARNING):
        await make().connection(token("a"))
    assert "no usable key" in caplog.text


# Addresses that depend on the token


async def test_each_tenant_has_its_own_keys(server: Any, make: Make):
    """CVE-2026-49998 of Centrifugo: with the same key id, one tenant's key verified another tenant's token."""
    server.serve(jwk("ES256", "same", 0), path="/blue/keys")
    server.serve(jwk("ES256", "same", 1), path="/green/keys")
    verifier = make("/{{tenant}}/keys", issuer_regex="^https://(?P<tenant>blue|green)$")
    assert (await verifier.connection(token("same", iss="https://blue"))).user == "42"
    with pytest.raises(TokenInvalid, match="signature"):
        await verifier.connection(token("same", iss="https://green"))
    assert (await verifier.connection(token("same", number=1, iss="https://green"))).user == "42"
    assert sorted(server.requests) == ["/blue/keys", "/green/keys"]


async def test_a_foreign_issuer_causes_no_request(server: Any, make: Make):
    verifier = make("/{{tenant}}/keys", issuer_regex="^(?P<tenant>blue|green)$")
    for issuer in ("red", "blue/../../x", "", "blue\n", "blue.evil.example"):
        with pytest.raises(TokenInvalid):
            await verifier.connection(token("a", iss=issuer))
    assert server.requests == []


async def test_kept_sets_are_bounded(server: Any, make: Make):
    for tenant in range(10):
        server.serve(jwk("ES256", "a"), path=f"/t{tenant}/keys")
    verifier = make(
        "/{{tenant}}/keys",
        issuer_regex="^(?P<tenant>.*)$",
        insecure_skip_jwks_endpoint_safety_check=True,
        jwks={"max_endpoints": 3},
    )
    for tenant in [*range(10), 9]:
        assert (await verifier.connection(token("a", iss=f"t{tenant}"))).user == "42"
    assert verifier.jwks is not None
    assert len(verifier.jwks._endpoints) == 3
    assert len(server.requests) == 10
    with pytest.raises(KeysUnavailable):
        await verifier.connection(token("a", iss="../t1"))
    assert server.requests[-1] == "/..%2Ft1/keys"


async def test_more_fetches_at_once_than_sets_are_kept(server: Any, make: Make):
    server.serve(jwk("ES256", "a"), path="/one/keys")
    good = server.answers["/one/keys"]
    server.answers["/one/keys"] = lambda handler: (server.release.wait(30), good(handler))
    verifier = make("/{{tenant}}/keys", issuer_regex="^(?P<tenant>one|two)$", jwks={"max_endpoints": 1})
    first = asyncio.create_task(verifier.connection(token("a", iss="one")))
    assert await asyncio.to_thread(server.asked.wait, 10)
    with pytest.raises(KeysUnavailable):
        await verifier.connection(token("a", iss="two"))
    server.release.set()
    assert (await first).user == "42"


async def settled(verifier: TokenVerifier) -> None:
    """Wait for the refresh that runs in the background."""
    assert verifier.jwks is not None
    running = [endpoint.task for endpoint in verifier.jwks._endpoints.values() if endpoint.task is not None]
    await asyncio.wait_for(asyncio.gather(*running), 20)
