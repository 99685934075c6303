"""A bare client of the protocol, for tests that must see or send exact frames."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import websockets.asyncio.client
import websockets.exceptions

Message = dict[str, Any]


class RawClient:
    """
    One WebSocket to the hub: sends frames as given, keeps every message that comes, answers pings.

    `messages` holds all that came, in order; `replies` by id; `pushes` the bodies of pushes; `pings` counts `{}`.
    Every wait is bounded by `timeout` seconds and raises TimeoutError with what did come.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        answer_pings: bool = True,
        headers: dict[str, str] | None = None,
        subprotocols: list[str] | None = None,
        origin: str | None = None,
        max_size: int | None = 2**24,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.answer_pings = answer_pings
        self.messages: list[Message] = []
        self.frames: list[str] = []
        self.replies: dict[int, Message] = {}
        self.pushes: list[Message] = []
        self.pings = 0
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._options: dict[str, Any] = {
            "additional_headers": headers or {},
            "subprotocols": subprotocols,
            "origin": origin,
            "max_size": max_size,
        }
        self._socket: websockets.asyncio.client.ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._closed = False
        self._last_id = 0

    # Its life

    async def open(self) -> RawClient:
        """Do the handshake; websockets.exceptions.InvalidStatus tells of a refusal."""
        self._socket = await websockets.asyncio.client.connect(
            self.url, proxy=None, ping_interval=None, compression=None, open_timeout=self.timeout, **self._options
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await self._reader

    @property
    def subprotocol(self) -> str | None:
        """What the hub chose of the subprotocols that were offered."""
        assert self._socket is not None
        return self._socket.subprotocol

    def abort(self) -> None:
        """Cut the TCP connection without a closing handshake."""
        assert self._socket is not None
        self._socket.transport.abort()

    def pause_reading(self) -> None:
        """Take nothing more from the kernel, so that the socket fills."""
        assert self._socket is not None
        self._socket.transport.pause_reading()

    def resume_reading(self) -> None:
        assert self._socket is not None
        self._socket.transport.resume_reading()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Sending

    async def send_frame(self, frame: str | bytes) -> None:
        """Send one frame exactly as given: text for str, binary for bytes."""
        assert self._socket is not None
        await self._socket.send(frame)

    async def send(self, *commands: Message) -> list[int]:
        """Send the commands in one frame, giving ids to those without; returns the ids."""
        ids = []
        for command in commands:
            if "send" not in command and "id" not in command:
                self._last_id += 1
                command["id"] = self._last_id
            ids.append(command.get("id", 0))
        await self.send_frame("\n".join(json.dumps(command) for command in commands))
        return ids

    async def request(self, method: str, /, **fields: Any) -> Message:
        """Send one command and return the whole reply."""
        (number,) = await self.send({method: fields})
        return await self.reply(number)

    async def call(self, method: str, /, **fields: Any) -> Message:
        """Send one command and return its result; an error reply fails the test."""
        reply = await self.request(method, **fields)
        assert "error" not in reply, reply
        result: Message = reply[method]
        return result

    async def error(self, method: str, /, **fields: Any) -> int:
        """Send one command and return the code of its error; a result fails the test."""
        reply = await self.request(method, **fields)
        assert "error" in reply, reply
        code: int = reply["error"]["code"]
        return code

    async def connect(self, token: str | None = None, **fields: Any) -> Message:
        """The connect command; returns its result."""
        if token is not None:
            fields["token"] = token
        return await self.call("connect", **fields)

    # Waiting

    async def reply(self, number: int) -> Message:
        await self.until(lambda: number in self.replies, what=f"a reply to {number}")
        return self.replies[number]

    async def push(self, match: Callable[[Message], bool] = lambda push: True, *, after: int = 0) -> Message:
        """The first push of those from index `after` on that `match` takes."""
        await self.until(lambda: any(match(push) for push in self.pushes[after:]), what="a push")
        return next(push for push in self.pushes[after:] if match(push))

    async def publications(self, channel: str, count: int) -> list[Message]:
        """All publications of the channel that came as pushes, as soon as there are `count`."""
        await self.until(lambda: len(self._publications(channel)) >= count, what=f"{count} publications of {channel}")
        return self._publications(channel)

    async def wait_closed(self) -> tuple[int | None, str | None]:
        """Wait for the end of the connection: its close code and reason."""
        await self.until(lambda: self._closed, what="a close", closing=True)
        return self.close_code, self.close_reason

    async def until(self, condition: Callable[[], bool], *, what: str, closing: bool = False) -> None:
        """Wait for the condition, looked at after each message; ends early when the connection does."""
        try:
            async with asyncio.timeout(self.timeout), self._changed:
                await self._changed.wait_for(lambda: condition() or (self._closed and not closing))
        except TimeoutError:
            raise TimeoutError(f"waited {self.timeout} s for {what}; came: {self.messages[-10:]}") from None
        if not condition():
            raise ConnectionError(
                f"closed with {self.close_code} {self.close_reason!r} before {what}; came: {self.messages[-10:]}"
            )

    # Inside

    def _publications(self, channel: str) -> list[Message]:
        return [push["pub"] for push in self.pushes if push.get("channel") == channel and "pub" in push]

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            async for frame in self._socket:
                await self._take(frame if isinstance(frame, str) else frame.decode())
        except websockets.exceptions.ConnectionClosed:
            pass
        finally:
            async with self._changed:
                self._closed = True
                self.close_code, self.close_reason = self._socket.close_code, self._socket.close_reason
                self._changed.notify_all()

    async def _take(self, frame: str) -> None:
        assert self._socket is not None
        pings = 0
        async with self._changed:
            self.frames.append(frame)
            for line in frame.split("\n"):
                if not line:
                    continue
                message: Message = json.loads(line)
                self.messages.append(message)
                if "id" in message:
                    self.replies[message["id"]] = message
                elif "push" in message:
                    self.pushes.append(message["push"])
                elif not message:
                    pings += 1
            self.pings += pings
            self._changed.notify_all()
        if pings and self.answer_pings:
            await self._socket.send("{}")
