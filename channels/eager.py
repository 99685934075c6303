"""Run a coroutine at once, and make a task of it only if it really has to wait.

Most commands of a client need no waiting: the key is in memory, the broker is in this process. Driving the coroutine by
hand answers them within the callback that brought the frame, in order, with no task and no pass through the loop.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any


def run_eagerly(
    coroutine: Coroutine[Any, Any, None],
    loop: asyncio.AbstractEventLoop,
) -> asyncio.Task[None] | None:
    """Run ``coroutine`` until it ends or first waits; returns a task for the rest, ``None`` when it has ended.

    What the coroutine raises before it first waits is raised here. Until it first waits it runs outside of any task, so
    ``asyncio.timeout`` and the like need ``await in_task()`` before them.
    """
    try:
        waiting_for = coroutine.send(None)
    except StopIteration:
        return None
    return loop.create_task(_rest(coroutine, waiting_for))


async def in_task() -> None:
    """Make sure that the caller runs within a task from here on."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        await _pass()


@types.coroutine
def _pass() -> Generator[None]:
    yield


@types.coroutine
def _drive(coroutine: Coroutine[Any, Any, None], waiting_for: Any) -> Generator[Any, Any, None]:
    step: Callable[..., Any]
    while True:
        try:
            sent = yield waiting_for
        except BaseException as error:  # noqa: BLE001  # handed on to the coroutine, whatever it is
            step, argument = coroutine.throw, error
        else:
            step, argument = coroutine.send, sent
        try:
            waiting_for = step(argument)
        except StopIteration:
            return


async def _rest(coroutine: Coroutine[Any, Any, None], waiting_for: Any) -> None:
    await _drive(coroutine, waiting_for)
