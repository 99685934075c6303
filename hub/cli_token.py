"""``hub token``: make a token with the configured key, or explain one."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from auth.errors import AuthError
from auth.issue import explain, issue_connection_token, issue_subscription_token
from auth.secret import Secret
from auth.settings import TokenSettings
from auth.tokens import TokenVerifier
from hub.cli import complain, read_settings
from hub.first_run import SECRETS_FILE, apply
from hub.settings import Settings
from hub.settings_load import SettingsError
from hub.settings_values import Wrong, format_duration, parse_duration, seconds


def token(args: argparse.Namespace) -> int:
    """Run the command; raises ``SettingsError``."""
    loaded, _ = read_settings(args)
    if args.check is None:
        return make(args, apply(loaded, demo=False)[0])
    settings = loaded.settings
    if os.path.exists(settings.data_dir / SECRETS_FILE):
        settings = apply(loaded, demo=False)[0]
    return check(args.check, settings)


def make(args: argparse.Namespace, settings: Settings) -> int:
    """Print a token, and nothing else, on standard output."""
    section, path = _section(settings, subscription=args.channel is not None)
    problems: list[str] = []
    ttl = info = None
    extra: dict[str, Any] = {}
    try:
        ttl = parse_duration(args.ttl)
    except Wrong as error:
        problems.append(f'--ttl is "{args.ttl}", but {error}.')
    if args.info is not None:
        info = _json("--info", args.info, problems)
    for claim in args.claim:
        name, equals, text = claim.partition("=")
        if name and equals:
            extra[name] = _json(f"--claim {name}", text, problems)
        else:
            problems.append(f'--claim is "{claim}", but must be NAME=JSON, for example --claim role=\'"admin"\'.')
    key = section.hmac_secret_key
    if args.key_file:
        try:
            key = Secret(Path(args.key_file).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"--key-file {args.key_file} cannot be read: {getattr(error, 'strerror', 'not text')}.")
    elif not key:
        problems.append(
            f"{path}.hmac_secret_key is not set; tokens are verified with public keys only, so give the private key"
            " that belongs to them with --key-file."
        )
    if problems or ttl is None:
        raise SettingsError(problems)
    options: dict[str, Any] = {
        "user": args.user,
        "exp": int(time.time() + seconds(ttl)) if ttl else None,
        "audience": section.audience,
        "issuer": section.issuer,
        "info": info,
        "user_id_claim": section.user_id_claim or "sub",
        "extra": extra,
        "algorithm": args.algorithm,
        "kid": args.kid,
    }
    try:
        if args.channel is None:
            print(issue_connection_token(key, **options))
        else:
            print(issue_subscription_token(key, channel=args.channel, **options))
    except AuthError as error:
        return complain(str(error))
    return 0


def check(text: str, settings: Settings) -> int:
    """Print what a token is and whether this hub accepts it; 0 if it does."""
    if text == "-":
        text = sys.stdin.read(1024 * 1024)
    text = text.strip()
    explanation = asyncio.run(_explain(text, settings))
    if explanation.valid:
        print(f"valid {explanation.kind} token")
    else:
        print(f"not accepted: {explanation.reason}")
    if explanation.expires_in is not None:
        left = seconds_text(abs(explanation.expires_in))
        print(f"expires in {left}" if explanation.expires_in > 0 else f"expired {left} ago")
    elif explanation.valid:
        print("never expires")
    if explanation.header or explanation.claims:
        print(f"header {json.dumps(explanation.header, ensure_ascii=False)}")
        print(f"claims {json.dumps(explanation.claims, ensure_ascii=False, indent=2)}")
    return 0 if explanation.valid else 1


def seconds_text(number: float) -> str:
    """Seconds as a duration of whole seconds."""
    try:
        return format_duration(parse_duration(f"{int(number)}s"))
    except Wrong:
        return "more than a lifetime"


async def _explain(text: str, settings: Settings) -> Any:
    # Which section verifies depends on what the token is, and that can only be known by reading it.
    verifiers = []
    try:
        for subscription in (False, True):
            section, path = _section(settings, subscription=subscription)
            verifiers.append(
                TokenVerifier(section, skip_signature=settings.client.insecure_skip_token_signature_verify, prefix=path)
            )
        explanation = await explain(text, verifiers[0])
        return await explain(text, verifiers[1]) if explanation.kind == "subscription" else explanation
    finally:
        for verifier in verifiers:
            await verifier.aclose()


def _section(settings: Settings, *, subscription: bool) -> tuple[TokenSettings, str]:
    if subscription and settings.client.subscription_token.enabled:
        return settings.client.subscription_token, "client.subscription_token"
    return settings.client.token, "client.token"


def _json(argument: str, text: str, problems: list[str]) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        problems.append(f"{argument} must be JSON (a text needs its quotes: '\"text\"').")
        return None
