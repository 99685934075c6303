"""Tests of hub.codes: one table of what goes over the wire."""

from __future__ import annotations

import pytest

from hub import codes
from hub.codes import CloseSession, Disconnect, ReplyError


@pytest.mark.parametrize("table", [codes.ERRORS, codes.DISCONNECTS, codes.UNSUBSCRIBES])
def test_each_code_is_there_once(table: tuple[codes.Error | Disconnect | codes.Unsubscribe, ...]) -> None:
    numbers = [each.code for each in table]
    assert numbers == sorted(set(numbers))


def test_every_code_is_in_its_table() -> None:
    known = (*codes.ERRORS, *codes.DISCONNECTS, *codes.UNSUBSCRIBES)
    for name, value in vars(codes).items():
        if isinstance(value, codes.Error | Disconnect | codes.Unsubscribe):
            assert any(each is value for each in known), name


def test_reasons_fit_into_a_close_frame() -> None:
    assert all(len(each.reason.encode()) <= 123 for each in codes.DISCONNECTS)


@pytest.mark.parametrize(
    ("code", "reconnect"),
    [
        (3000, True),
        (3499, True),
        (3500, False),
        (3999, False),
        (4000, True),
        (4499, True),
        (4500, False),
        (4999, False),
    ],
)
def test_whether_sdks_come_back(code: int, reconnect: bool) -> None:
    assert Disconnect(code, "").reconnect is reconnect


def test_only_what_may_succeed_later_is_temporary() -> None:
    assert {each.code for each in codes.ERRORS if each.temporary} == {100, 111, 113}


def test_exceptions_carry_their_codes() -> None:
    assert ReplyError(codes.EXPIRED).error is codes.EXPIRED
    assert str(ReplyError(codes.EXPIRED)) == "expired"
    assert CloseSession(codes.SLOW).disconnect is codes.SLOW
