from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, dataclass

import msgspec
import pytest

from auth.secret import Secret


@dataclass(frozen=True)
class Holder:
    key: Secret


def test_prints_nothing_of_its_value():
    secret = Secret("hunter2")
    holder = Holder(secret)
    for text in (repr(secret), str(secret), f"{secret}", f"{secret:>20}", "%s" % secret, "%r" % secret, repr(holder)):  # noqa: UP031
        assert "hunter2" not in text
        assert "***" in text


def test_gives_its_value_when_asked():
    assert Secret("hunter2").reveal() == "hunter2"


def test_an_empty_one_is_false_and_looks_empty():
    assert not Secret()
    assert Secret("x")
    assert (str(Secret("")), repr(Secret(""))) == ("", "Secret('')")


def test_equal_only_to_an_equal_secret():
    assert Secret("é") == Secret("é")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("\udcff") == Secret("\udcff")


def test_does_not_slip_into_encodings():
    secret = Secret("hunter2")
    for encode in (json.dumps, msgspec.json.encode, pickle.dumps):
        with pytest.raises(TypeError):
            encode(secret)


def test_can_be_copied_with_the_settings_that_hold_it():
    secret = Secret("hunter2")
    assert copy.copy(secret) is secret
    assert asdict(Holder(secret))["key"] is secret
