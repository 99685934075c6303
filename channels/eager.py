"""Run a coroutine at once, and make a task of it only if it really has to wait.

Most commands of a client need no waiting: the key is in memory, the broker is in this process. Driving the coroutine by
hand answers them within the callback that brought the frame, in order, with no task and no pass through the loop.
"""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Coroutine, Generator
from typing import Any, NoReturn


class _Phase(threading.local):
    """Whether a coroutine of this thread is being run up to its first wait."""

    eager = False


_phase = _Phase()


def run_eagerly(
    coroutine: Coroutine[Any, Any, None],
    loop: asyncio.AbstractEventLoop,
) -> asyncio.Task[None] | None:
    """Run ``coroutine`` until it ends or first waits; returns a task for the rest, ``None`` when it has ended.

    What the coroutine raises before it first waits is raised here. Until it first waits it has no task of its own, so
    ``asyncio.timeout`` and the like need ``await in_task()`` before them.
    """
    before, _phase.eager = _phase.eager, True
    try:
        waiting_for = coroutine.send(None)
    except StopIteration:
        return None
    finally:
        _phase.eager = before
    return loop.create_task(_Waiting(coroutine, waiting_for))


async def in_task() -> None:
    """Make sure that the caller runs within its own task from here on."""
    if _phase.eager:
        # Not that of whoever runs it, if that is a task: a timeout would end that one instead.
        await _pass()


@types.coroutine
def _pass() -> Generator[None]:
    yield


class _Waiting(Coroutine[Any, Any, None]):
    """A coroutine that has been run up to its first wait, for a task to take over there.

    An object rather than a coroutine around the other, since a coroutine that is cancelled before its first step never
    begins, and could not tell the one within.
    """

    __slots__ = ("_coroutine", "_taken_over", "_waiting_for")

    def __init__(self, coroutine: Coroutine[Any, Any, None], waiting_for: Any) -> None:
        self._coroutine = coroutine
        self._waiting_for = waiting_for
        self._taken_over = False

    def send(self, value: Any, /) -> Any:
        if self._taken_over:
            return self._coroutine.send(value)
        self._taken_over = True
        waiting_for, self._waiting_for = self._waiting_for, None
        return waiting_for

    def throw(self, error: Any, value: Any = None, traceback: Any = None, /) -> Any:
        if not self._taken_over:
            self._taken_over = True
            waiting_for, self._waiting_for = self._waiting_for, None
            if isinstance(waiting_for, asyncio.Future):
                waiting_for.cancel()  # as a task does with what it waits for
        return self._coroutine.throw(error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> NoReturn:
        raise TypeError("only a task can take over a coroutine that has been run eagerly")
