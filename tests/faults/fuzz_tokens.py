"""Mutated tokens, judged by a second verifier of a few lines: nothing forged, expired or foreign is ever let in."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import random
import time
from typing import Any

from tests.faults.fuzz_report import Report
from tests.faults.mutate import dump, mutate_bytes, mutate_tree, odd
from tests.faults.raw_tokens import HEADER, b64url, raw_token, signature
from tests.faults.wire import Closed, Hang, Wire, loads
from tests.support.hub_config import TOKEN_SECRET
from tests.support.hub_process import HubProcess
from tests.support.tokens import connection_token

CHANNEL = "closed:f"
USER = "42"
HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
CLAIMS: dict[str, Any] = {
    "sub": USER,
    "exp": 0,
    "iat": 1_700_000_000,
    "nbf": 1_700_000_000,
    "jti": "t1",
    "info": {"name": "x"},
    "b64info": "e30=",
    "meta": {"m": 1},
    "channels": ["plain:f"],
    "subs": {"recent:f": {"info": {"a": 1}, "data": {"b": 2}, "override": {"presence": {"value": True}}}},
    "expire_at": 0,
    "channel": CHANNEL,
    "client": "",
    "data": {"d": 1},
    "override": {"join_leave": {"value": False}},
    "aud": ["a", "b"],
    "iss": "issuer",
}


class Generator:
    """Tokens that are good but for one thing, and the claims that they were made with."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def token(self, *, subscription: bool) -> str:
        chance = self.chance
        now = int(time.time())
        keep = ["sub", "exp", *(["channel"] if subscription else [])]
        more = [name for name in CLAIMS if name not in ("channel", "expire_at", *keep)]
        names = keep + chance.sample(more, chance.randrange(4))
        claims = {name: json.loads(json.dumps(CLAIMS[name])) for name in names}
        claims["exp"] = now + chance.choice([3600, 3600, 3600, -3600, 0, 10**9, -(10**9), 10**15])
        choice = chance.random()
        if choice < 0.35:
            for _ in range(chance.choice([1, 1, 2])):
                claims = mutate_tree(claims, chance)
                if not isinstance(claims, dict):
                    break
            return raw_token(dump(claims, chance, loose=chance.random() < 0.3))
        if choice < 0.5:
            name = chance.choice(list(CLAIMS))
            claims[name] = odd(chance)
            return raw_token(dump(claims, chance))
        if choice < 0.6:
            return raw_token(mutate_bytes(dump(claims, chance), chance))
        good = raw_token(dump(claims, chance))
        if choice < 0.75:
            mutated = mutate_bytes(good.encode(), chance)
            return mutated.decode("latin-1")
        if choice < 0.85:
            header = dump(mutate_tree({"alg": "HS256", "typ": "JWT", "kid": "k"}, chance), chance)
            return raw_token(dump(claims, chance), header=header)
        if choice < 0.9:
            algorithm = chance.choice(
                ["none", "None", "NONE", "HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA", "", "hs256"]
            )
            header = json.dumps({"alg": algorithm}).encode()
            return raw_token(dump(claims, chance), header=header, secret=chance.choice([TOKEN_SECRET, "", "x" * 32]))
        head, payload, sign = good.split(".")
        return chance.choice(
            [
                f"{head}.{payload}.",
                f"{head}..{sign}",
                f".{payload}.{sign}",
                f"{head}.{payload}",
                f"{head}.{payload}.{sign}.{sign}",
                f"{head}.{payload}.{sign}=",
                f"{head}.{payload}.{sign[:-1]}",
                f"{head}.{payload}.{sign}A",
                f" {good}",
                f"{good}\n",
                f"Bearer {good}",
                good.upper(),
                good * 40,
                "",
                ".",
                "..",
                "." * 5000,
                "a" * 8193,
                b64url(HEADER).decode() + "." + b64url(signature(b"x")).decode() + "." + sign,
            ]
        )


def signed(token: str) -> dict[str, Any] | None:
    """The claims if the signature is right by any reading of base64, else ``None``."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        header, payload, sign = (
            base64.urlsafe_b64decode(part.strip().rstrip("=").encode("ascii") + b"==") for part in parts
        )
        algorithm = loads(header).get("alg")
    except (ValueError, binascii.Error, AttributeError, RecursionError):
        return None
    hashing = HASHES.get(algorithm) if isinstance(algorithm, str) else None
    if hashing is None:
        return None
    expected = hmac.new(TOKEN_SECRET.encode(), ".".join(parts[:2]).strip().encode(), hashing).digest()
    if not hmac.compare_digest(expected, sign):
        return None
    try:
        claims = loads(payload)
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def judge(token: str, *, subscription: bool) -> set[int]:
    """Codes that may come of presenting the token; 0 is being let in."""
    invalid = {103} if subscription else {3500}
    if not token:
        return {103} if subscription else {3501}
    claims = signed(token)
    if claims is None:
        return invalid
    allowed = invalid | {0, 109, 110, 102} | ({3500} if subscription else {3505, 105, 107})
    expires = claims.get("exp")
    if isinstance(expires, (int, float)) and not isinstance(expires, bool) and expires < time.time() - 5:
        allowed.discard(0)
    if subscription and (claims.get("channel") != CHANNEL or claims.get("sub") != USER):
        allowed.discard(0)
    if not subscription and claims.get("channel"):
        allowed.discard(0)
    return allowed


async def fuzz_subscription_tokens(hub: HubProcess, report: Report, count: int, seed: str) -> None:
    """Many on one connection: an invalid subscription token is an error, not the end."""
    generator = Generator(random.Random(seed))
    wire: Wire | None = None
    for _ in range(count):
        token = generator.token(subscription=True)
        allowed = judge(token, subscription=True)
        if wire is None:
            wire = await Wire.open(hub.port)
            await wire.connect(connection_token(USER))
        try:
            reply = await wire.call(subscribe={"channel": CHANNEL, "token": token})
            code = reply.get("error", {}).get("code", 0)
            if code == 0:
                await wire.call(unsubscribe={"channel": CHANNEL})
        except Closed as closed:
            code, wire = closed.code, None
        except Hang:
            code, wire = -1, None
        report.inputs["subscription tokens"] += 1
        report.answers[f"subscribe {code}"] += 1
        if code not in allowed:
            report.complain("subscription token", token.encode("utf-8", "replace"), code, allowed)
    if wire is not None:
        wire.drop()


async def fuzz_connection_tokens(hub: HubProcess, report: Report, count: int, seed: str) -> None:
    """One on each connection; those that are let in are seen by a refresh with another mutated token as well."""
    generator = Generator(random.Random(seed))
    for _ in range(count):
        token = generator.token(subscription=False)
        code = await _connect(hub, token)
        report.inputs["connection tokens"] += 1
        report.answers[f"connect {code}"] += 1
        allowed = judge(token, subscription=False)
        if code not in allowed:
            report.complain("connection token", token.encode("utf-8", "replace"), code, allowed)
        refresh = generator.token(subscription=False)
        code = await _refresh(hub, refresh)
        report.inputs["refresh tokens"] += 1
        report.answers[f"refresh {code}"] += 1
        allowed = judge(refresh, subscription=False) | {3005, 3010}
        claims = signed(refresh)
        if claims is not None and claims.get("sub") != USER:
            allowed.discard(0)
        if code not in allowed:
            report.complain("refresh token", refresh.encode("utf-8", "replace"), code, allowed)


async def _connect(hub: HubProcess, token: str) -> int:
    wire = await Wire.open(hub.port)
    try:
        reply = await wire.call(connect={"token": token})
        code: int = reply.get("error", {}).get("code", 0)
        if code:
            wire.command(ping={})
            assert (await wire.closed()).code == 3501, "a refused connection goes on"
        return code
    except Closed as closed:
        return closed.code
    except Hang:
        return -1
    finally:
        wire.drop()


async def _refresh(hub: HubProcess, token: str) -> int:
    wire = await Wire.open(hub.port)
    try:
        await wire.connect(connection_token(USER))
        reply = await wire.call(refresh={"token": token})
        code: int = reply.get("error", {}).get("code", 0)
        return code
    except Closed as closed:
        return closed.code
    except Hang:
        return -1
    finally:
        wire.drop()
