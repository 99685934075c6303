"""Text without the secrets in it, for logs.

What is masked: the value behind a name that ends like one of a secret (``token=…``, ``"api_key": "…"``,
``Authorization: …``, ``password='…'``), also in Python's and JSON's spelling and escaped within each other; a JSON Web
Token and a private key by their looks; the password of an address. Rather too much is masked than too little.

A client chooses much of what gets here, on the event loop: each pattern looks at every character a bounded number of
times. A pattern therefore begins only where a run of its characters begins, and never gives back what it has taken, or
finds at once that this is of no use. Groups are not repeated possessively: Python before 3.11.5 gets that wrong.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

MASK: Final = "******"
LONGEST: Final = 16 * 1024
LONGEST_LINE: Final = 2 * 1024
LONGEST_NAME: Final = 256

# A name, perhaps in quotes, and what stands between it and its value. Within JSON within JSON quotes have backslashes.
_NAME: Final = re.compile(
    r"(?<![\w%.-])(?P<name>[\w%.-]++)(?P<quoted>\\*+[\"'])?\s{0,8}+(?P<between>[=:,])\s{0,8}+"
    r"(?:[bBrR]{1,2}(?=\\*[\"']))?(?P<open>\\*+[\"'])?"
)
_SECRET_NAME: Final = re.compile(
    r"(?:token|secrets?|passw(?:or)?d|api[_-]?keys?|(?:secret|private|access|signing|hmac)[_-]?keys?|^keys?|\.keys?"
    r"|^jwt|cf_connect|credentials?|authorization|cookie)$|secret[\w-]*$",
    re.IGNORECASE,
)
_PLAIN: Final = re.compile(r"(?:None|null|true|false|True|False|\*{6})(?=[\s,;&)\]}\"']|$)")
_PARAMETER: Final = re.compile(r"[^&\s\"'#;]*+")
_WORD: Final = re.compile(
    r"(?:(?:bearer|apikey|basic)\s{1,8}+)?[^\s\"'\\]*(?:\\(?![rn\"'\\])[^\s\"'\\]*)*", re.IGNORECASE
)
_LIST: Final = re.compile(r"\[[^\]\n]*+\]?")
_LINE: Final = re.compile(r"[^\n]*+")
_ENDS: Final = {quote: re.compile(rf"[{quote}\n]") for quote in "\"'"}

_SCHEME: Final = re.compile(r"(?i)\b(bearer|apikey|basic)(\s{1,8}+)[A-Za-z0-9._~+/=-]{6,}+")
_JWT: Final = re.compile(r"(?<![\w-])((?:(?!eyJ)[\w-])*)eyJ[\w-]{4,}+\.[\w-]*+(?:\.[\w-]*+)?")
_PRIVATE_KEY: Final = re.compile(r"(-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----)[^-]*+")
_AUTHORITY: Final = re.compile(r"(?<=://)[^\s\"<>]++")


def mask(text: str) -> str:
    """The text with everything that looks like a token, key or password replaced by stars."""
    text = _PRIVATE_KEY.sub(rf"\1{MASK}", text)
    text = _mask_named(text)
    text = _SCHEME.sub(rf"\1\2{MASK}", text)
    text = _JWT.sub(rf"\1{MASK}", text)
    return _AUTHORITY.sub(_without_password, text)


def is_secret_name(name: str) -> bool:
    """Whether what has this name must not be shown; parts of the name may be percent-encoded."""
    end = name[-LONGEST_NAME:]
    return _SECRET_NAME.search(unquote(end) if "%" in end else end) is not None


def shorten(text: str) -> str:
    """The beginning of a text that is too long for a log line; at a space, lest it end within a secret."""
    return _cut(text, LONGEST)


def shorten_lines(text: str) -> str:
    """A traceback without the rest of lines that are too long, and without its middle when it is too long itself."""
    if len(text) <= LONGEST_LINE:
        return text
    lines = [_cut(line, LONGEST_LINE) for line in text.split("\n")]
    size = sum(map(len, lines)) + len(lines)
    if size <= LONGEST:
        return "\n".join(lines)
    # How it began matters less than where it ended.
    head: list[str] = []
    tail: list[str] = []
    room = LONGEST
    while room > LONGEST * 3 // 4:
        head.append(lines[len(head)])
        room -= len(head[-1]) + 1
    while room > LONGEST_LINE:
        tail.append(lines[-1 - len(tail)])
        room -= len(tail[-1]) + 1
    left_out = len(lines) - len(head) - len(tail)
    return "\n".join([*head, f"  … ({left_out} lines left out)", *reversed(tail)])


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    end = limit
    while end > limit * 7 // 8 and not text[end - 1].isspace():
        end -= 1
    if not text[end - 1].isspace():
        end = limit
    return f"{text[:end]}… ({len(text) - end} characters left out)"


def _mask_named(text: str) -> str:
    parts: list[str] = []
    done = position = 0
    while found := _NAME.search(text, position):
        position = found.end()
        if not is_secret_name(found["name"]):
            continue
        end = _end_of_value(text, found)
        if end > position:
            parts += (text[done:position], MASK)
            done = position = end
    return "".join((*parts, text[done:])) if parts else text


def _end_of_value(text: str, found: re.Match[str]) -> int:
    """Where the value behind a name ends; where it begins, when there is none to mask."""
    start = found.end()
    if found["open"]:
        return _end_of_quoted(text, start, found["open"])
    if found["between"] == "," or _PLAIN.match(text, start):
        return start
    if text.startswith("{", start):
        return start
    if text.startswith("[", start):
        pattern = _LIST
    elif found["name"].lower().endswith("cookie"):
        pattern = _LINE
    else:
        pattern = _PARAMETER if found["between"] == "=" else _WORD
    value = pattern.match(text, start)
    return value.end() if value else start


def _end_of_quoted(text: str, start: int, opening: str) -> int:
    """Where the quote is that ends a text, or the line if none does."""
    quote, escapes = opening[-1], len(opening) - 1
    for found in _ENDS[quote].finditer(text, start):
        if found[0] == "\n":
            return found.start()
        before = position = found.start()
        while before > start and text[before - 1] == "\\":
            before -= 1
        # A quote within the text has more backslashes than those around it, on every level and in either language.
        if position - before <= escapes:
            return before
    return len(text)


def _without_password(found: re.Match[str]) -> str:
    # Up to the last @: a password may hold any character that its owner forgot to encode.
    before, at, after = found[0].rpartition("@")
    return f"{MASK}@{after}" if at and ":" in before else found[0]
