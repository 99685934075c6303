"""Tokens that are not to be believed, one line each, and the code for each way of presenting them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.faults.raw_tokens import b64url, raw_token, signature
from tests.faults.wire import Closed, Wire
from tests.support.hub_config import TOKEN_SECRET
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token, subscription_token

AUDIENCE, ISSUER = "this-hub", "the-issuer"
FOREIGN = rsa.generate_private_key(public_exponent=65537, key_size=2048)
HUB_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
HUB_PEM = HUB_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    trust = {"audience": AUDIENCE, "issuer": ISSUER, "rsa_public_key": HUB_PEM.decode()}
    with HubProcess(changes={"client": {"token": trust}}) as process:
        yield process
        log = process.log()
        assert "Traceback" not in log, process.log_tail(200)
        # A token's payload is its middle part; no part of any may be in the log.
        assert "eyJ" not in log
        assert TOKEN_SECRET not in log


def good(user: str = "42", **claims: object) -> str:
    return connection_token(user, **{"aud": AUDIENCE, "iss": ISSUER, **claims})  # type: ignore[arg-type]


def sub(channel: str, user: str = "42", **claims: object) -> str:
    return subscription_token(channel, user, **{"aud": AUDIENCE, "iss": ISSUER, **claims})  # type: ignore[arg-type]


def claims(text: str) -> bytes:
    """Raw claims with the audience and issuer that are asked for."""
    return b'{"aud":"%b","iss":"%b",%b}' % (AUDIENCE.encode(), ISSUER.encode(), text.encode())


def forged(token: str) -> str:
    """One bit of the signature turned."""
    head, payload, sign = token.split(".")
    raw = bytearray(base64.urlsafe_b64decode(sign + "=" * (-len(sign) % 4)))
    raw[0] ^= 1
    return f"{head}.{payload}.{b64url(bytes(raw)).decode()}"


def changed_payload(token: str) -> str:
    head, _, sign = token.split(".")
    payload = b64url(claims('"sub":"admin"')).decode()
    return f"{head}.{payload}.{sign}"


def unsigned(algorithm: str) -> str:
    head = b64url(b'{"alg":"%b","typ":"JWT"}' % algorithm.encode())
    return (head + b"." + b64url(claims('"sub":"42"')) + b".").decode()


def confused() -> str:
    """Signed with HMAC by the RSA key's public text: the old trick against verifiers that trust the header."""
    signed = b64url(b'{"alg":"HS256","typ":"JWT"}') + b"." + b64url(claims('"sub":"42"'))
    return (signed + b"." + b64url(signature(signed, HUB_PEM.decode()))).decode()


INVALID: dict[str, Callable[[], str]] = {
    "a word": lambda: "rubbish",
    "two dots": lambda: "..",
    "two parts": lambda: "a.b",
    "four parts": lambda: good() + ".x",
    "blanks": lambda: "   ",
    "line break at the end": lambda: good() + "\n",
    "not base64": lambda: "€." * 2 + "€",
    "NUL": lambda: "\x00.\x00.\x00",
    "signature turned": lambda: forged(good()),
    "signature cut off": lambda: good()[:-10],
    "signature missing": lambda: good().rpartition(".")[0] + ".",
    "payload changed": lambda: changed_payload(good()),
    "another secret": lambda: good(secret="another-secret-of-at-least-32-bytes!"),
    "algorithm none": lambda: unsigned("none"),
    "algorithm nOnE": lambda: unsigned("nOnE"),
    "algorithm missing": lambda: raw_token(claims('"sub":"42"'), header=b'{"typ":"JWT"}'),
    "algorithm a number": lambda: raw_token(claims('"sub":"42"'), header=b'{"alg":5}'),
    "algorithm a list": lambda: raw_token(claims('"sub":"42"'), header=b'{"alg":["HS256"]}'),
    "header a list": lambda: raw_token(claims('"sub":"42"'), header=b"[]"),
    "header not JSON": lambda: raw_token(claims('"sub":"42"'), header=b"{"),
    "header nested deeply": lambda: raw_token(claims('"sub":"42"'), header=b'{"alg":"HS256","x":' + b"[" * 2000),
    "algorithm that has no key here": lambda: raw_token(claims('"sub":"42"'), header=b'{"alg":"ES256"}'),
    "public key used as a secret": confused,
    "another RSA key": lambda: jwt.encode({"sub": "42", "aud": AUDIENCE, "iss": ISSUER}, FOREIGN, algorithm="RS256"),
    "key of its own in the header": lambda: jwt.encode(
        {"sub": "42", "aud": AUDIENCE, "iss": ISSUER},
        FOREIGN,
        algorithm="RS256",
        headers={"jku": "http://127.0.0.1:9/"},
    ),
    "unknown critical header": lambda: raw_token(
        claims('"sub":"42"'), header=b'{"alg":"HS256","crit":["exp2"],"exp2":1}'
    ),
    "another audience": lambda: good(aud="elsewhere"),
    "no audience": lambda: raw_token(b'{"sub":"42","iss":"the-issuer"}'),
    "audience a number": lambda: raw_token(b'{"sub":"42","iss":"the-issuer","aud":5}'),
    "another issuer": lambda: good(iss="elsewhere"),
    "no issuer": lambda: raw_token(b'{"sub":"42","aud":"this-hub"}'),
    "issuer a list": lambda: raw_token(b'{"sub":"42","aud":"this-hub","iss":["the-issuer"]}'),
    "claims a list": lambda: raw_token(b"[]"),
    "claims not JSON": lambda: raw_token(b"{"),
    "claims not UTF-8": lambda: raw_token(claims('"sub":"42"')[:-1] + b',"x":"\xff"}'),
    "claims nested deeply": lambda: raw_token(claims('"sub":"42"')[:-1] + b',"x":' + b"[" * 3000 + b"]" * 3000 + b"}"),
    "user a number": lambda: raw_token(claims('"sub":42')),
    "user a list": lambda: raw_token(claims('"sub":["42"]')),
    "exp as text": lambda: raw_token(claims('"sub":"42","exp":"tomorrow"')),
    "exp a list": lambda: raw_token(claims('"sub":"42","exp":[1]')),
    "exp not a number": lambda: raw_token(claims('"sub":"42","exp":NaN')),
    "exp infinite": lambda: raw_token(claims('"sub":"42","exp":1e400')),
    "channels not a list": lambda: raw_token(claims('"sub":"42","channels":"plain:a"')),
    "channels of numbers": lambda: raw_token(claims('"sub":"42","channels":[1]')),
    "subs not an object": lambda: raw_token(claims('"sub":"42","subs":[]')),
    "half a surrogate as user": lambda: raw_token(claims('"sub":"\\ud800"')),
    "too large": lambda: good(filler="x" * 9000),
    "far too large": lambda: good(filler="x" * 45_000),
}

EXPIRED: dict[str, Callable[[], str]] = {
    "an hour ago": lambda: good(ttl=-3600),
    "a moment ago": lambda: good(ttl=-2),
    "in 1970": lambda: raw_token(claims('"sub":"42","exp":1')),
    "before 1970": lambda: raw_token(claims('"sub":"42","exp":-1')),
    "as a fraction": lambda: raw_token(claims(f'"sub":"42","exp":{time.time() - 100}')),
}


async def presented(hub: HubProcess, token: str) -> tuple[Wire, int]:
    """Connect with a token: the error code of the reply, or the code of the close, or 0."""
    wire = await Wire.open(hub.port)
    wire.command(connect={"token": token})
    return wire, await code_of(wire)


async def code_of(wire: Wire) -> int:
    try:
        reply = json.loads(await wire.line())
        while "push" in reply:
            reply = json.loads(await wire.line())
    except Closed as closed:
        return closed.code
    code: int = reply.get("error", {}).get("code", 0)
    return code


async def test_a_good_token_is_taken(hub: HubProcess) -> None:
    wire, code = await presented(hub, good())
    assert code == 0
    wire.drop()
    wire, code = await presented(hub, jwt.encode({"sub": "1", "aud": AUDIENCE, "iss": ISSUER}, HUB_KEY, "RS256"))
    assert code == 0
    wire.drop()


@pytest.mark.parametrize("name", list(INVALID))
async def test_an_invalid_connection_token_closes_with_3500(hub: HubProcess, name: str) -> None:
    _, code = await presented(hub, INVALID[name]())
    assert code == 3500


@pytest.mark.parametrize("name", list(EXPIRED))
async def test_an_expired_connection_token_is_error_109_and_nothing_goes_after_it(hub: HubProcess, name: str) -> None:
    wire, code = await presented(hub, EXPIRED[name]())
    assert code == 109
    wire.command(subscribe={"channel": "plain:a"})
    assert (await wire.closed()).code == 3501


async def test_a_token_that_is_not_valid_yet(hub: HubProcess) -> None:
    wire, code = await presented(hub, good(nbf=int(time.time()) + 600))
    assert code in (109, 3500)
    wire.drop()


async def test_a_subscription_token_is_no_connection_token(hub: HubProcess) -> None:
    _, code = await presented(hub, sub("closed:a"))
    assert code == 3500


async def test_an_unknown_namespace_in_the_token(hub: HubProcess) -> None:
    wire, code = await presented(hub, good(channels=["nowhere:a"]))
    assert code == 102
    wire.drop()


@pytest.mark.parametrize(
    "name",
    [name for name in INVALID if name not in ("channels not a list", "channels of numbers", "subs not an object")],
)
async def test_an_invalid_subscription_token_is_error_103(hub: HubProcess, name: str) -> None:
    wire, code = await presented(hub, good())
    assert code == 0
    wire.command(subscribe={"channel": "closed:a", "token": INVALID[name]()})
    assert await code_of(wire) == 103
    assert "presence_stats" in await wire.call(presence_stats={"channel": "lobby:a"})
    wire.drop()


SUBSCRIPTIONS: dict[str, tuple[Callable[[], str], int]] = {
    "good": (lambda: sub("closed:a"), 0),
    "expired": (lambda: sub("closed:a", ttl=-60), 109),
    "another channel": (lambda: sub("closed:b"), 3500),
    "another user": (lambda: sub("closed:a", "43"), 3500),
    "a connection token": (good, 103),
    "channel a number": (lambda: raw_token(claims('"sub":"42","channel":5')), 103),
    "forged": (lambda: forged(sub("closed:a")), 103),
}


@pytest.mark.parametrize("name", list(SUBSCRIPTIONS))
async def test_subscription_tokens(hub: HubProcess, name: str) -> None:
    make, wanted = SUBSCRIPTIONS[name]
    wire, code = await presented(hub, good())
    assert code == 0
    wire.command(subscribe={"channel": "closed:a", "token": make()})
    assert await code_of(wire) == wanted
    wire.drop()


REFRESHES: dict[str, tuple[Callable[[], str], int]] = {
    "good": (good, 0),
    "expired": (lambda: good(ttl=-60), 3005),
    "another user": (lambda: good("43"), 3500),
    "forged": (lambda: forged(good()), 3500),
    "wrong audience": (lambda: good(aud="elsewhere"), 3500),
    "a subscription token": (lambda: sub("closed:a"), 3500),
    "rubbish": (lambda: "rubbish", 3500),
    "too large": (lambda: good(filler="x" * 9000), 3500),
    "empty": (lambda: "", 3501),
}


@pytest.mark.parametrize("name", list(REFRESHES))
async def test_refresh_tokens(hub: HubProcess, name: str) -> None:
    make, wanted = REFRESHES[name]
    wire, code = await presented(hub, good())
    assert code == 0
    wire.command(refresh={"token": make()})
    assert await code_of(wire) == wanted
    wire.drop()


SUB_REFRESHES: dict[str, tuple[Callable[[], str], tuple[int, ...]]] = {
    "good": (lambda: sub("closed:a"), (0,)),
    "expired": (lambda: sub("closed:a", ttl=-60), (109, 110)),
    "another channel": (lambda: sub("closed:b"), (3500,)),
    "another user": (lambda: sub("closed:a", "43"), (3500,)),
    "forged": (lambda: forged(sub("closed:a")), (3500,)),
    "empty": (lambda: "", (107,)),
}


@pytest.mark.parametrize("name", list(SUB_REFRESHES))
async def test_sub_refresh_tokens(hub: HubProcess, name: str) -> None:
    make, wanted = SUB_REFRESHES[name]
    wire, code = await presented(hub, good())
    assert code == 0
    assert "subscribe" in await wire.call(subscribe={"channel": "closed:a", "token": sub("closed:a")})
    wire.command(sub_refresh={"channel": "closed:a", "token": make()})
    assert await code_of(wire) in wanted
    wire.drop()
