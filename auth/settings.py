"""What can be configured about tokens: ``client.token.*`` and ``client.subscription_token.*``.

Names, nesting and defaults are Centrifugo's, so that an existing configuration carries over; what it does not have is
marked "Ours". A value's meaning is checked where it is used: :class:`auth.keys.KeySet`, :class:`auth.scope.Scope` and
:class:`auth.jwks.JWKS` raise :class:`auth.errors.BadSetting` when they are built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from auth.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class JWKSTLSSettings:
    """``client.token.jwks.tls.*``."""

    enabled: bool = False
    """Use the settings of this section for the connection to the JWKS endpoint."""
    server_ca_pem: str = ""
    """Certificate authority that the endpoint's certificate must come from: PEM text or the path of a PEM file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JWKSSettings:
    """``client.token.jwks.*``."""

    tls: JWKSTLSSettings = field(default_factory=JWKSTLSSettings)
    """How to trust an https endpoint that is not signed by a public authority."""
    refresh_interval: timedelta = timedelta(minutes=10)
    """Ours: keys older than this are fetched again in the background; a withdrawn key is honoured until that succeeds."""
    cooldown: timedelta = timedelta(seconds=30)
    """Ours: least time between two fetches that tokens with unknown key ids cause."""
    timeout: timedelta = timedelta(seconds=5)
    """Ours: most time one fetch may take; at most 60s."""
    max_size: int = 1024 * 1024
    """Ours: largest key set accepted, in bytes."""
    max_endpoints: int = 128
    """Ours: most key sets kept in memory when the endpoint is a template; the least recently used one goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """``client.token.*``: which tokens are trusted."""

    hmac_secret_key: Secret = field(default_factory=Secret)
    """Secret of at least 32 bytes that verifies HS256, HS384 and HS512 tokens; empty: such tokens are refused."""
    hmac_previous_secret_key: Secret = field(default_factory=Secret)
    """The secret before the last rotation, accepted beside the current one."""
    hmac_previous_secret_key_valid_until: int = 0
    """Unix seconds until which the previous secret is accepted; 0: as long as it is configured."""
    rsa_public_key: str = ""
    """PEM public key that verifies RS256, RS384 and RS512 tokens; several PEM blocks may follow each other."""
    ecdsa_public_key: str = ""
    """PEM public key (P-256, P-384 or P-521) that verifies ES256, ES384 or ES512 tokens; several may follow."""
    eddsa_public_key: str = ""
    """Ours: PEM Ed25519 public key that verifies EdDSA tokens; several may follow each other."""
    jwks_public_endpoint: str = ""
    """URL of a JSON Web Key Set; ``{{name}}`` is replaced by that named group of issuer_regex or audience_regex."""
    insecure_skip_jwks_endpoint_safety_check: bool = False
    """Allow ``{{name}}`` groups that are not plain lists of values; a forged token then chooses what URL is fetched."""
    jwks: JWKSSettings = field(default_factory=JWKSSettings)
    """How the key set is fetched."""
    audience: str = ""
    """Value that the aud claim must be or contain; empty: not checked."""
    audience_regex: str = ""
    """Regular expression that aud, or one of its values, must match; not together with audience."""
    issuer: str = ""
    """Value that the iss claim must be; empty: not checked."""
    issuer_regex: str = ""
    """Regular expression that iss must match; not together with issuer."""
    user_id_claim: str = ""
    """Claim that holds the user id instead of sub; letters and underscores only."""
    leeway: timedelta = timedelta(0)
    """Ours: tolerance for clocks that differ, applied to exp and nbf."""
    max_size: int = 8192
    """Ours: longest token looked at, in bytes; longer ones are refused before any cryptography."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionTokenSettings(TokenSettings):
    """``client.subscription_token.*``: trust for subscription tokens, when it differs from connection tokens'."""

    enabled: bool = False
    """Verify subscription tokens by this section alone instead of by client.token."""
