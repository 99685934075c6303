"""Tests of hub.errors: every refusal of the channels has its code."""

from __future__ import annotations

import pytest

from channels import errors
from hub import codes
from hub.errors import error_of


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (errors.UnknownChannel, 102),
        (errors.BadChannel, 107),
        (errors.PermissionDenied, 103),
        (errors.NotAvailable, 108),
        (errors.BadRequest, 107),
        (errors.Unrecoverable, 112),
        (errors.Unavailable, 100),
        (errors.ChannelError, 100),
    ],
)
def test_codes(refusal: type[errors.ChannelError], code: int) -> None:
    assert error_of(refusal("why")).code == code


def test_none_is_forgotten() -> None:
    for each in errors.ChannelError.__subclasses__():
        assert each is errors.Unavailable or error_of(each()) is not codes.INTERNAL
