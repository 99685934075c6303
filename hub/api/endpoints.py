"""The server API over HTTP: ``/api/<method>``, ``/api/batch`` and the legacy ``/api``."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import orjson
from msgspec import Raw
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from auth.apikeys import ApiKeys
from channels.errors import BadRequest, ChannelError, Unavailable
from hub import codes
from hub.api import requests
from hub.api.methods import Methods, error_result
from hub.codes import ReplyError
from hub.node import Node
from hub.surrogates import decode

logger = logging.getLogger("hub.api")

TRANSPORT_STATUSES = {100: 500, 102: 404, 104: 404, 107: 400, 108: 400, 111: 429, 112: 416, 113: 409}
"""HTTP statuses of errors in transport mode; all others are 500, or 503 when trying again later may help."""

AT_ONCE = 500
"""Commands of one request that are begun before the event loop has its turn."""

Reply = dict[str, Any]


class BadBody(Exception):
    """The body is not what the API reads; the text says why, ``status`` is the HTTP status of the answer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status

    def response(self) -> Response:
        """The answer; a body that was not read to its end leaves nothing to keep the connection for."""
        headers = {} if self.status == 400 else {"Connection": "close"}
        return PlainTextResponse(str(self), self.status, headers)


class Api:
    """The HTTP endpoints of one node's API."""

    def __init__(self, node: Node) -> None:
        settings = node.settings.http_api
        self._node = node
        self._settings = settings
        self._methods = Methods(node)
        self._keys = ApiKeys([settings.key, *settings.keys])
        self._decoders = {name: msgspec.json.Decoder(kind) for name, (kind, _) in self._methods.table.items()}
        self._batch_decoder = msgspec.json.Decoder(requests.Batch)
        self._legacy_decoder = msgspec.json.Decoder(requests.LegacyCommand)

    async def method(self, request: Request) -> Response:
        """``POST /api/<method>``."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        name = request.path_params["method"]
        if name not in self._methods.table and name != "batch":
            return PlainTextResponse(f"There is no API method {name[:64]!r}.", 404)
        try:
            body = await self._body(request)
            if name == "batch":
                return json_response(await self._batch(body))
            reply, status = await self._call(name, Raw(body))
        except BadBody as error:
            return error.response()
        if "error" in reply and self._in_transport_mode(request):
            return json_response(reply["error"], status)
        return json_response(reply)

    async def legacy(self, request: Request) -> Response:
        """``POST /api``: one ``{"method": …, "params": …}``, or several a line each; answered line by line in order."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        try:
            commands = self._legacy_commands(await self._body(request))
        except BadRequest as error:
            return PlainTextResponse(str(error), 400)
        except BadBody as error:
            return error.response()
        replies = []
        for index, command in enumerate(commands):
            if index % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                reply, _ = await self._call(command.method, command.params)
                replies.append(orjson.dumps(reply))
            except BadBody as error:
                return PlainTextResponse(str(error), 400)
        return Response(b"\n".join(replies), media_type="application/json")

    def _legacy_commands(self, body: bytes) -> list[requests.LegacyCommand]:
        """The commands of a legacy body; a single one may be laid out over several lines."""
        try:
            commands = [self._decoded(self._legacy_decoder, line) for line in body.split(b"\n") if line.strip()]
        except BadBody:
            commands = [self._decoded(self._legacy_decoder, body)]
        if not commands:
            raise BadBody("The body has no command.")
        return commands

    async def _batch(self, body: bytes) -> Reply:
        try:
            batch = self._decoded(self._batch_decoder, body, parts=True)
        except BadRequest as error:
            raise BadBody(str(error)) from None
        replies: list[Reply] = []
        for start in range(0, len(batch.commands), AT_ONCE):
            commands = batch.commands[start : start + AT_ONCE]
            if batch.parallel:
                replies += await asyncio.gather(*(self._batched(each) for each in commands))
            else:
                replies += [await self._batched(each) for each in commands]
            await asyncio.sleep(0)
        return {"replies": replies}

    async def _batched(self, command: dict[str, Raw]) -> Reply:
        if len(command) != 1:
            return {"error": error_result(BadRequest("a command has one method"))}
        [(name, params)] = command.items()
        try:
            reply, _ = await self._call(name, params)
        except BadBody as error:
            return {"error": error_result(BadRequest(str(error)))}
        return reply if "error" in reply else {name: reply["result"]}

    async def _call(self, name: str, params: Raw) -> tuple[Reply, int]:
        """Run one method; what it refuses becomes an ``error``. Raises ``BadBody`` for what is not JSON.

        Returns the reply, and the HTTP status that an error has in transport mode.
        """
        found = self._methods.table.get(name)
        metrics = self._node.metrics
        metrics.api_calls[name if found is not None else "unknown"] += 1
        if found is None:
            return {"error": error_result(ReplyError(codes.METHOD_NOT_FOUND))}, 404
        out_of_reach = False
        try:
            return {"result": await found[1](self._decoded(self._decoders[name], params))}, 200
        except (ChannelError, ReplyError) as error:
            out_of_reach = isinstance(error, Unavailable)
            if out_of_reach:
                logger.debug("the API method %s failed: %s", name, error)  # counted, and the store says it itself
            reply = error_result(error)
        except (BadBody, asyncio.CancelledError):
            raise
        except Exception:
            metrics.failures[f"api {name}"] += 1
            logger.exception("the API method %s failed", name)
            reply = error_result(ReplyError(codes.INTERNAL))
        metrics.api_errors[name, reply["code"]] += 1
        return {"error": reply}, 503 if out_of_reach else TRANSPORT_STATUSES.get(reply["code"], 500)

    def _decoded(self, decoder: msgspec.json.Decoder[Any], body: bytes | Raw, *, parts: bool = False) -> Any:
        try:
            return decode(decoder, body, parts=parts)
        except msgspec.ValidationError as error:
            raise BadRequest(str(error)) from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadBody(f"The body is not JSON: {error}.") from None

    def _refused(self, request: Request) -> Response | None:
        if self._settings.insecure:
            return None
        key = request.headers.get("X-API-Key") or request.query_params.get("api_key", "")
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        if not key and scheme.lower() == "apikey":
            key = credentials.strip()
        if self._keys.check(key):
            return None
        self._node.metrics.api_errors["any", 401] += 1
        return Response(status_code=401)

    def _in_transport_mode(self, request: Request) -> bool:
        mode = request.headers.get("X-Centrifugo-Error-Mode") or self._settings.error_mode
        return mode == "transport"

    async def _body(self, request: Request) -> bytes:
        """The body, in UTF-8 and within its bounds of size and time; raises ``BadBody``."""
        limit = self._settings.body_size_limit
        too_large = BadBody("The body is larger than http_api.body_size_limit.", 413)
        if int(request.headers.get("Content-Length", "0")) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_timeout.total_seconds()):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise BadBody("The body took longer than http_api.body_timeout.", 408) from None
        except ClientDisconnect:
            raise BadBody("The client went away.") from None
        if not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError:
                raise BadBody("The body is not UTF-8.") from None
        return bytes(body)


def json_response(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
