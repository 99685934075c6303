from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.logs import HumanFormatter, JsonFormatter, MaskSecrets, mask, setup
from hub.settings import LogSettings

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJlLW9mLWEtdG9rZW4"


@pytest.mark.parametrize(
    "text",
    [
        "GET /connection/websocket?token=S3CRET-VALUE&x=1",
        "GET /x?cf_connect=%7B%22token%22%3A%22S3CRET-VALUE%22%7D HTTP/1.1",
        '"WebSocket /x?a=1&api_key=S3CRET-VALUE" [accepted]',
        "GET /x?access_token=S3CRET-VALUE",
        "Authorization: apikey S3CRET-VALUE",
        "authorization: Bearer S3CRET-VALUE",
        "X-API-Key: S3CRET-VALUE",
        "[(b'host', b'h'), (b'authorization', b'Bearer S3CRET-VALUE')]",
        "{'x-api-key': 'S3CRET-VALUE'}",
        "Cookie: a=S3CRET-VALUE; b=S3CRET-VALUE",
        'command {"connect":{"token":"S3CRET-VALUE"},"id":1}',
        r'command b"{\"connect\":{\"token\":\"S3CRET-VALUE\"}}"',
        "using apikey S3CRET-VALUE now",
        "connecting to redis://user:S3CRET-VALUE@host:6379/0",
        JWT.replace("c2lnbmF0dXJlLW9mLWEtdG9rZW4", "S3CRET-VALUE"),
    ],
)
def test_secrets_are_masked(text: str) -> None:
    masked = mask(text)
    assert "S3CRET" not in masked
    assert "******" in masked


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/publish?x=1 200",
        "client token expired",
        "the setting client.token.audience is wrong",
        "listening on http://127.0.0.1:8000",
        "eyJ is how they begin",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert mask(text) == text


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("hub.x", logging.WARNING, __file__, 1, message, args, None)
    made.__dict__.update(extra)
    return made


def test_a_human_line() -> None:
    line = HumanFormatter().format(record("token=%s for %d", "S3CRET", 5))
    assert line.endswith("WARNING hub.x: token=****** for 5")


def test_a_message_cannot_forge_a_line() -> None:
    line = HumanFormatter().format(record("%s", "a\n2026-01-01 00:00:00.000 ERROR   hub: forged\r\n"))
    assert all(text.startswith("    ") for text in line.splitlines()[1:])
    assert len(JsonFormatter().format(record("%s", "a\nb")).splitlines()) == 1


def test_a_json_line() -> None:
    line = json.loads(JsonFormatter().format(record("hello %s", JWT, client="c1", count=3, header="Bearer S3CRET-VAL")))
    assert line["message"] == "hello ******"
    assert (line["level"], line["logger"], line["client"], line["count"]) == ("warning", "hub.x", "c1", 3)
    assert "S3CRET" not in line["header"]
    assert line["time"].endswith("Z")


def test_a_json_line_of_what_is_no_json() -> None:
    circle: list[object] = []
    circle.append(circle)
    line = json.loads(JsonFormatter().format(record("x \udcff", odd=object(), big=2**70, circle=circle)))
    assert line["odd"].startswith("<object")
    assert line["big"] == str(2**70)


@pytest.mark.parametrize("formatter", [HumanFormatter(), JsonFormatter()])
def test_a_traceback_is_masked_too(formatter: logging.Formatter) -> None:
    try:
        raise ValueError(f"bad token {JWT}")
    except ValueError:
        made = logging.LogRecord("hub", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    text = formatter.format(made)
    assert "ValueError" in text
    assert JWT not in text


def test_the_filter_masks_for_handlers_of_others() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(MaskSecrets())
    handler.handle(record('%s - "WebSocket %s" [accepted]', "1.2.3.4", "/x?token=S3CRET"))
    assert stream.getvalue() == '1.2.3.4 - "WebSocket /x?token=******" [accepted]\n'


def test_the_filter_masks_tracebacks_and_survives_odd_arguments() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(MaskSecrets())
    handler.handle(record("%d token=S3CRET", "no number"))
    try:
        raise ValueError("token=S3CRET")
    except ValueError:
        made = logging.LogRecord("hub", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    handler.handle(made)
    assert "ValueError: token=******" in stream.getvalue()
    assert "S3CRET" not in stream.getvalue()


def test_r10_what_extra_holds_is_masked_by_name_and_by_looks() -> None:
    extra = {
        "headers": {"x-api-key": "S3CRET", b"n": [JWT, {"password": b"S3CRET"}]},
        "token": "S3CRET",
        "api_keys": ["S3CRET", 5],
        "odd": Exception("token=S3CRET"),
        "plain": {"a": [1, 2.5, None, True, "x"]},
    }
    text = JsonFormatter().format(record("x", **extra))
    line = json.loads(text)
    assert "S3CRET" not in text
    assert JWT not in text
    assert line["headers"]["x-api-key"] == line["token"] == "******"
    assert line["plain"] == {"a": [1, 2.5, None, True, "x"]}


def test_what_extra_holds_is_bounded() -> None:
    wide: list[object] = []
    wide.extend([wide] * 50)
    assert len(JsonFormatter().format(record("x", wide=wide, many=list(range(100_000))))) < 20_000


@pytest.mark.parametrize("formatter", [HumanFormatter(), JsonFormatter()])
@pytest.mark.timeout(60)
def test_r9_a_huge_message_and_traceback_become_a_short_line(formatter: logging.Formatter) -> None:
    huge = '"' + "secret" * 1_000_000
    try:
        raise ValueError(huge)
    except ValueError:
        made = logging.LogRecord("hub", logging.ERROR, __file__, 1, "got %s", (huge,), sys.exc_info())
    line = formatter.format(made)
    assert len(line) < 40_000
    assert "ValueError" in line
    assert "characters left out" in line


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("arguments", [("token=S3CRET",), ("no number",)])
def test_r10_a_line_that_cannot_be_written_is_told_masked(
    arguments: tuple[str, ...], logging_restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(LogSettings())
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(Full())
    logging.getLogger("hub").error("lost %s apikey S3CRET-VALUE" + "%d" * (arguments[0] == "no number"), *arguments)
    error = capsys.readouterr().err
    (line,) = error.splitlines()
    assert "a log line could not be written (OSError): ERROR lost" in line
    assert "S3CRET" not in line


def test_r28_the_log_file_is_opened_anew_when_it_was_moved_away(tmp_path: Path, logging_restored: None) -> None:
    file = tmp_path / "hub.log"
    setup(LogSettings(file=str(file)))
    logging.getLogger("hub").warning("one")
    file.rename(tmp_path / "hub.log.1")
    logging.getLogger("hub").warning("two")
    assert file.read_text().endswith("two\n")
    assert (tmp_path / "hub.log.1").read_text().endswith("one\n")


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # Ours closes what it takes away, and those are pytest's.
    root.handlers.clear()
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.parametrize("name", ["uvicorn.error", "uvicorn.access", "hub", "websockets.server"])
def test_every_logger_goes_through_the_mask(tmp_path: Path, logging_restored: None, name: str) -> None:
    leak = logging.StreamHandler(io.StringIO())
    logging.getLogger("uvicorn.error").addHandler(leak)
    file = tmp_path / "logs" / "hub.log"
    setup(LogSettings(file=str(file), format="json"))
    logging.getLogger(name).info("GET /x?token=S3CRET")
    (line,) = file.read_text().splitlines()
    assert json.loads(line)["message"] == "GET /x?token=******"
    assert leak.stream.getvalue() == ""


def test_levels(tmp_path: Path, logging_restored: None) -> None:
    file = tmp_path / "hub.log"
    setup(LogSettings(file=str(file), level="error"))
    logging.getLogger("hub").warning("no")
    logging.getLogger("hub").error("yes")
    setup(LogSettings(file=str(file), level="none"))
    logging.getLogger("hub").critical("no")
    assert [line.split(": ")[-1] for line in file.read_text().splitlines()] == ["yes"]
