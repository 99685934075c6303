from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from datetime import timedelta

import auth.ratelimit
import auth.settings
from auth.secret import Secret
from auth.settings import SubscriptionTokenSettings, TokenSettings


def test_defaults_trust_nobody_and_follow_centrifugo():
    settings = TokenSettings()
    assert not settings.hmac_secret_key
    assert settings.leeway == timedelta(0)
    assert settings.max_size == 8192
    assert settings.hmac_previous_secret_key_valid_until == 0
    assert not any(
        (settings.rsa_public_key, settings.ecdsa_public_key, settings.eddsa_public_key, settings.jwks_public_endpoint)
    )
    assert not settings.insecure_skip_jwks_endpoint_safety_check


def test_the_subscription_section_is_the_same_plus_a_switch():
    extra = {field.name for field in fields(SubscriptionTokenSettings)} - {
        field.name for field in fields(TokenSettings)
    }
    assert extra == {"enabled"}
    assert SubscriptionTokenSettings().enabled is False


def test_secrets_do_not_print():
    assert "hunter2" not in repr(TokenSettings(hmac_secret_key=Secret("hunter2")))


def test_every_field_has_a_line_of_documentation_below_it():
    for module in (auth.settings, auth.ratelimit):
        for node in ast.parse(inspect.getsource(module)).body:
            if not isinstance(node, ast.ClassDef) or not node.decorator_list:
                continue
            for at, statement in enumerate(node.body):
                if isinstance(statement, ast.AnnAssign):
                    doc = node.body[at + 1] if at + 1 < len(node.body) else None
                    documented = isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
                    assert documented, f"{node.name}.{ast.unparse(statement.target)}"
