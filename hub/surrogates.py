r"""JSON with lone surrogates: half an emoji, escaped as ``"\ud83d"``, which browsers send when text is cut.

It is valid JSON by its grammar and a payload like any other, but the decoder refuses it. So when decoding fails, and only
then, such escapes are masked (``\ud83d`` as ``\ue83d``), and unmasked in the payloads of what was decoded. Texts that the hub
itself reads (names, tags, reasons) may not have them.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from hub.nesting import MAX_NESTING, is_too_deep

T = TypeVar("T")

_ESCAPE = re.compile(rb"\\(?:u([dDeE])([89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL)
_SWAPPED = bytes.maketrans(b"dDeE", b"eEdD")


def decode(decoder: msgspec.json.Decoder[T], data: bytes | Raw, *, parts: bool = False) -> T:
    """Decode, letting payloads have lone surrogates; raises ``msgspec.MsgspecError``, also for what is nested too deeply.

    ``parts``: what is decoded here has parts (``Raw``) that will be decoded, and looked at for their nesting, themselves.
    """
    if not parts and is_too_deep(bytes(data)):
        raise msgspec.DecodeError(f"JSON is nested deeper than {MAX_NESTING} levels")
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        masked = _mask(bytes(data))
        if masked is None:
            raise
        return cast("T", _unmasked(decoder.decode(masked)))


def _mask(data: bytes) -> bytes | None:
    r"""``None`` if there is nothing to mask, or no way back because both ``\ud…`` and ``\ue…`` are there."""
    if b"\\u" not in data:
        return None
    kinds = {match[1].lower() for match in _ESCAPE.finditer(data) if match[1]}
    return _swap(data) if kinds == {b"d"} else None


def _swap(data: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: b"\\u" + match[1].translate(_SWAPPED) + match[2] if match[1] else match[0], data)


def _unmasked(value: Any) -> Any:
    if isinstance(value, Raw):
        return Raw(_swap(bytes(value)))
    if isinstance(value, str) and any("\ue800" <= each <= "\uefff" for each in value):
        raise msgspec.ValidationError("a text has a lone surrogate")
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            found = getattr(value, name)
            if isinstance(found, (str, Raw, Struct, dict, list)):
                setattr(value, name, _unmasked(found))
    elif isinstance(value, dict):
        return {_unmasked(key): _unmasked(each) for key, each in value.items()}
    elif isinstance(value, list):
        return [_unmasked(each) for each in value]
    return value
