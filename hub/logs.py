"""Log lines, for people or as JSON, that never show a secret.

Everything logs through the standard library. ``setup`` gives the root logger one handler and takes those of uvicorn
away, so that every line passes the same formatter, and with it ``mask``. Where another program owns the logging (the
hub mounted in an application), ``MaskSecrets`` is a filter for its handlers.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from hub.masking import MASK, is_secret_name, mask, shorten, shorten_lines
from hub.settings import LogSettings

__all__ = ["LEVELS", "MASK", "HumanFormatter", "JsonFormatter", "MaskSecrets", "mask", "setup"]

LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "none": logging.CRITICAL + 1,
}
DEEPEST = 8
MOST = 1000


class MaskSecrets(logging.Filter):
    """A filter that masks the messages passing it, arguments and traceback included; it drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = _message(record)
        masked = mask(message)
        if masked != message or record.args:
            record.msg, record.args = masked, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = mask(shorten_lines(record.exc_text))
        return True


class HumanFormatter(logging.Formatter):
    """``2026-11-23 12:00:00.123 INFO    hub.server: ready`` in local time, tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        name = "" if record.name == "root" else f"{record.name}: "
        # Whatever came from a client must not look like a line of our own.
        message = mask(_message(record)).replace("\r", "\\r").replace("\n", "\n    ")
        line = f"{stamp}.{int(record.msecs):03d} {record.levelname:<7} {name}{message}"
        return line + "".join("\n" + text for text in _details(self, record))


class JsonFormatter(logging.Formatter):
    """One object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, what ``extra`` gave, and ``error``."""

    _OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(_message(record)),
        }
        given = {name: value for name, value in record.__dict__.items() if name not in self._OWN and name not in line}
        line |= _Masked().of(given)
        if details := _details(self, record):
            line["error"] = "\n".join(details)
        # What a logger was given may be anything; a line that cannot be written would be lost.
        options = orjson.OPT_NON_STR_KEYS
        try:
            return orjson.dumps(line, default=_text, option=options).decode()
        except (orjson.JSONEncodeError, RecursionError):
            plain = {name: _text(value) for name, value in line.items()}
            return orjson.dumps(plain, option=options).decode()


class _Masked:
    """What a logger was given besides its message, without secrets: plain values of bounded depth and number."""

    def __init__(self) -> None:
        self.left = MOST

    def of(self, values: dict[Any, Any], depth: int = 0) -> dict[str, Any]:
        return {str(name): self.value(value, str(name), depth) for name, value in values.items() if self.left > 0}

    def value(self, value: object, name: str, depth: int) -> Any:
        self.left -= 1
        if value is None or isinstance(value, bool | int | float):
            return MASK if value and is_secret_name(name) and not isinstance(value, bool) else value
        if isinstance(value, str | bytes) and value and is_secret_name(name):
            return MASK
        if isinstance(value, str):
            return mask(shorten(value))
        if depth < DEEPEST and isinstance(value, dict):
            return self.of(value, depth + 1)
        if depth < DEEPEST and isinstance(value, list | tuple | set | frozenset):
            return [self.value(item, name, depth + 1) for item in value if self.left > 0]
        return "…" if isinstance(value, dict | list | tuple | set | frozenset) else _text(value)


class _SafeHandler(logging.Handler):
    """Tells of a line that could not be written without going round the mask."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not logging.raiseExceptions or sys.stderr is None:
            return
        reason = type(sys.exc_info()[1]).__name__
        line = mask(_message(record)).replace("\r", "\\r").replace("\n", "\\n")
        try:
            sys.stderr.write(f"hub: a log line could not be written ({reason}): {record.levelname} {line}\n")
        except (OSError, ValueError):
            pass  # nowhere left to tell


class _Stream(_SafeHandler, logging.StreamHandler):  # type: ignore[type-arg]  # generic only for type checkers
    pass


class _File(_SafeHandler, logging.handlers.WatchedFileHandler):
    """Opens the file anew when it was moved away, as logrotate does."""


def _message(record: logging.LogRecord) -> str:
    try:
        return shorten(record.getMessage())
    except Exception as error:  # noqa: BLE001 - arguments that do not fit, or whose repr fails
        return f"{shorten(str(record.msg))} (its arguments cannot be shown: {type(error).__name__})"


def _details(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    details = []
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    if record.exc_text:
        details.append(record.exc_text)
    if record.stack_info:
        details.append(formatter.formatStack(record.stack_info))
    return [mask(shorten_lines(text)) for text in details]


def _text(value: object) -> str:
    return mask(shorten(str(value))).encode("utf-8", "backslashreplace").decode()


def setup(settings: LogSettings) -> None:
    """Send all logging to standard error or to the file; raises ``OSError`` when that cannot be opened."""
    handler: logging.Handler
    if settings.file:
        Path(settings.file).parent.mkdir(parents=True, exist_ok=True)
        handler = _File(settings.file, encoding="utf-8", errors="backslashreplace")
    else:
        handler = _Stream(sys.stderr)
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
