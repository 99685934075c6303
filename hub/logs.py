"""Log lines, for people or as JSON, that never show a secret.

Everything logs through the standard library. ``setup`` gives the root logger one handler and takes those of uvicorn
away, so that every line passes the same formatter, and with it ``mask``. Where another program owns the logging (the
hub mounted in an application), ``MaskSecrets`` is a filter for its handlers.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from hub.settings import LogSettings

LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "none": logging.CRITICAL + 1,
}
MASK = "******"

# In the order in which they are looked for.
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A parameter of an address, also one whose name is percent-encoded in part; a whole connect command may be one.
    (
        re.compile(r"(?i)((?:^|[?&;\s\"'])(?:[\w%.-]*(?:token|api_?key|secret|password)|cf_connect|jwt)=)[^&\s\"'#;]+"),
        rf"\1{MASK}",
    ),
    # Headers, also as Python or JSON shows them: b'authorization', b'apikey …'
    (
        re.compile(
            r"(?i)((?:proxy-)?authorization|x-api-key)(\\?[\"']?\s*[:=,]\s*(?:b(?=[\"']))?\\?[\"']?)"
            r"(?:(?:bearer|apikey|basic)\s+)?[^\s\"',;\\]+"
        ),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"(?i)(\b(?:set-)?cookie[\"']?\s*[:=,]\s*(?:b(?=[\"']))?[\"']?)[^\"'\n]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(bearer|apikey|basic)(\s+)[A-Za-z0-9._~+/=-]{6,}"), rf"\1\2{MASK}"),
    # Members of JSON: "token": "…"
    (
        re.compile(
            r"(?i)(\\?[\"'](?:[\w-]*token|[\w-]*secret[\w-]*|password|api_?key)\\?[\"']\s*:\s*\\?[\"'])[^\"'\\]+"
        ),
        rf"\1{MASK}",
    ),
    # A JWT by its looks: two or three parts of base64url, the first beginning with {"
    (re.compile(r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?"), MASK),
    # The password of an address
    (re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]+@"), f"{MASK}@"),
)


def mask(text: str) -> str:
    """The text with everything that looks like a token, key or password replaced by stars."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class MaskSecrets(logging.Filter):
    """A filter that masks the messages passing it, arguments included; it drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        masked = mask(message)
        if masked != message:
            record.msg, record.args = masked, ()
        return True


class HumanFormatter(logging.Formatter):
    """``2026-11-23 12:00:00.123 INFO    hub.server: ready`` in local time, tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        name = "" if record.name == "root" else f"{record.name}: "
        # Whatever came from a client must not look like a line of our own.
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\n    ")
        line = f"{stamp}.{int(record.msecs):03d} {record.levelname:<7} {name}{message}"
        return mask(line + "".join("\n" + text for text in _details(self, record)))


class JsonFormatter(logging.Formatter):
    """One object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, what ``extra`` gave, and ``error``."""

    _OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        for name, value in record.__dict__.items():
            if name not in self._OWN and name not in line:
                line[name] = mask(value) if isinstance(value, str) else value
        if details := _details(self, record):
            line["error"] = mask("\n".join(details))
        # What a logger was given may be anything; a line that cannot be written would be lost.
        options = orjson.OPT_NON_STR_KEYS
        try:
            return orjson.dumps(line, default=_text, option=options).decode()
        except (orjson.JSONEncodeError, RecursionError):
            plain = {name: _text(value) for name, value in line.items()}
            return orjson.dumps(plain, option=options).decode()


def _details(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    details = []
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    if record.exc_text:
        details.append(record.exc_text)
    if record.stack_info:
        details.append(formatter.formatStack(record.stack_info))
    return details


def _text(value: object) -> str:
    return mask(str(value)).encode("utf-8", "backslashreplace").decode()


def setup(settings: LogSettings) -> None:
    """Send all logging to standard error or to the file; raises ``OSError`` when that cannot be opened."""
    handler: logging.Handler
    if settings.file:
        Path(settings.file).parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(settings.file, encoding="utf-8", errors="backslashreplace")
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else HumanFormatter())
    root = logging.getLogger()
    for present in root.handlers[:]:
        root.removeHandler(present)
        present.close()
    root.addHandler(handler)
    root.setLevel(LEVELS[settings.level])
    # Own handlers of these would write around the formatter. Run uvicorn with log_config=None, or it adds them again.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    if settings.level != "trace":
        # One line per frame or per packet is for those who ask for it.
        for name in ("websockets", "uvicorn.asgi", "aiormq", "aio_pika"):
            logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.captureWarnings(True)
