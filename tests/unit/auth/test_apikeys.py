from __future__ import annotations

import pytest

from auth.apikeys import ApiKeys
from auth.secret import Secret


def test_any_of_the_keys_opens():
    keys = ApiKeys([Secret("first"), Secret("second")])
    assert keys.check("first")
    assert keys.check("second")


@pytest.mark.parametrize("candidate", ["", "firs", "first ", "FIRST", "third", "é", "\udcff", "first\0", "x" * 100_000])
def test_nothing_else_does(candidate: str):
    assert not ApiKeys([Secret("first"), Secret("second")]).check(candidate)


def test_an_empty_key_never_opens():
    keys = ApiKeys([Secret("")])
    assert not keys
    assert not keys.check("")
    assert bool(ApiKeys([Secret("x")]))


def test_a_key_that_is_not_ascii():
    assert ApiKeys([Secret("schlüssel")]).check("schlüssel")


def test_keeps_no_key():
    keys = ApiKeys([Secret("first")])
    assert b"first" not in b"".join(keys._digests)
