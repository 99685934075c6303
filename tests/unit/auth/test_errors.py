from __future__ import annotations

from auth import errors


def test_every_error_is_an_auth_error():
    made = [
        errors.TokenInvalid("why"),
        errors.TokenExpired(5),
        errors.KeyMissing("http://x", "k"),
        errors.KeysUnavailable("later"),
        errors.BadSetting("a.b", "wrong."),
        errors.BadKey("a.b", "short."),
    ]
    assert all(isinstance(error, errors.AuthError) for error in made)


def test_a_bad_setting_names_itself():
    error = errors.BadKey("client.token.hmac_secret_key", "too short.")
    assert str(error) == "client.token.hmac_secret_key: too short."
    assert (error.setting, error.problem) == ("client.token.hmac_secret_key", "too short.")
    assert isinstance(error, errors.BadSetting)


def test_data_is_in_attributes():
    assert errors.TokenInvalid("why").reason == "why"
    assert errors.TokenExpired(5).expired_at == 5
    missing = errors.KeyMissing("http://x", "k")
    assert (missing.url, missing.kid) == ("http://x", "k")
    assert "http" not in str(missing)
