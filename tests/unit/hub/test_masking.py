from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.masking import LONGEST, LONGEST_LINE, MASK, is_secret_name, mask, shorten, shorten_lines


@pytest.mark.parametrize(
    "text",
    [
        "ConnectRequest(token='S3CRET', data=1)",
        'Struct(token="S3CRET")',
        r"ConnectRequest(token='it\'s S3CRET')",
        "password='S3CRET' and more",
        "hmac_secret_key: S3CRET",
        "token: S3CRET",
        "api_key = S3CRET",
        '{"key":"S3CRET"}',
        '{"http_api":{"keys":["S3CRET","S3CRET"]}}',
        r'{"token":"S\"3CRET"}',
        r'b"{\"connect\":{\"token\":\"a\\\"S3CRET\"}}"',
        "{b'token': b'S3CRET'}",
        "(b'x-api-key', b'S3CRET')",
        '{"token": "S3CRET and the closing quote is missing',
        "postgres://u:p@S3CRET@host/db",
        "postgres://u:S3CR/ET@S3CRET@host/db",
        "postgres://u:S3CRET?x#y@host/db",
        "redis://:S3CRET@host",
        "host=x password=S3CRET",
        "/x?%74oken=S3CRET",
        "HUB_HTTP_API_KEY=S3CRET",
        "Cookie: a=1; b=S3CRET",
        "Set-Cookie: sid=S3CRET; HttpOnly",
        "sid-eyJhbGciOiJIUzI1NiJ9.S3CRET.S3CRET",
        "-----BEGIN RSA PRIVATE KEY-----\nS3CRET\nS3CRET\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_r10_every_spelling_of_a_secret_is_masked(text: str) -> None:
    masked = mask(text)
    assert MASK in masked
    assert "S3CR" not in masked
    assert "3CRET" not in masked


@pytest.mark.parametrize(
    "text",
    [
        "Struct(token=None, data=1)",
        '{"token":"","key":null}',
        '{"token":{"audience":"hub"}}',
        "idempotency_key=abc",
        "max_tokens=5",
        "https://example.com/@someone?mail=a@b",
        "client.token.hmac_secret_key (hub.toml) is not usable",
        "the key 'token'",
        "tokens, keys and secrets",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert mask(text) == text


@given(
    st.text(st.sampled_from("ab\\\"' &;,\t\n/@é"), min_size=0, max_size=8),
    st.sampled_from(["token", "password", "api_key", "x-api-key", "client_secret"]),
    st.integers(0, 3),
    st.booleans(),
)
def test_a_secret_is_masked_however_deep_it_is_quoted(around: str, name: str, levels: int, python: bool) -> None:
    value = {name: f"{around}S3CRET{around}", "after": "seen"}
    text = repr(value) if python else json.dumps(value)
    for _ in range(levels):
        text = json.dumps({"data": text})
    masked = mask(text)
    assert "S3CRET" not in masked
    # A backslash at the end makes its quote look like one within the value; then the rest is masked as well.
    assert "seen" in masked or around.endswith("\\"), "masking ends where the value does"


UNIT = 1_000_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part",
    [
        *(
            "secret",
            "secret.",
            '"secret',
            "-eyJaaaa",
            "eyJaaaa-",
            "token=",
            'token="',
            'token="\n',
            "token=\\",
            "://a:",
        ),
        *("?a", "a.", "cookie=\n", "bearer ", "basic  ", "authorization ", "'api", " ", "\\", '"', "%74", "key:[", "@"),
        *("-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "token, ", "b'token',b'"),
    ],
)
def test_r9_masking_takes_time_in_proportion_to_the_text(part: str) -> None:
    """A megabyte: with a pattern that looks at all of it from each place, this would take hours."""
    for text in (part * (UNIT // len(part)), f"{part[:1]}" + part * (UNIT // len(part)) + "!"):
        assert len(mask(text)) <= 8 * len(text)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("token", True),
        ("access_token", True),
        ("X-API-Key", True),
        ("hmac_secret_key", True),
        ("http_api.key", True),
        ("Set-Cookie", True),
        ("tok%65n", True),
        ("x" * 10_000 + "token", True),
        ("channel", False),
        ("monkey", False),
        ("token_count", False),
    ],
)
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_r9_a_long_text_is_cut_at_a_space() -> None:
    assert shorten("x" * LONGEST) == "x" * LONGEST
    cut = shorten("word " * LONGEST)
    assert len(cut) < LONGEST + 50
    assert "word … (" in cut
    assert len(shorten("x" * LONGEST * 9)) < LONGEST + 50


def test_r9_what_is_cut_off_does_not_bare_a_secret() -> None:
    text = "x " * (LONGEST // 2 - 10) + "redis://u:S3CRET-and-so-on@host"
    assert "S3CRET" not in mask(shorten(text))


def test_r9_a_long_traceback_keeps_both_its_ends() -> None:
    lines = [f"line {number} " + "x" * 100 for number in range(1000)]
    cut = shorten_lines("\n".join(lines))
    assert len(cut) <= LONGEST + 50
    assert cut.startswith("line 0 ")
    assert cut.endswith(lines[-1])
    assert "lines left out" in cut
    one = shorten_lines("Traceback\nValueError: " + "x" * 100_000)
    assert one.startswith("Traceback\nValueError: xxx")
    assert len(one) < LONGEST_LINE + 100
