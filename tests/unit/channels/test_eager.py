"""Tests of channels.eager: what runs at once, what becomes a task, and what a task can count on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from channels.eager import in_task, run_eagerly


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as found:
        yield found


def eager(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    return run_eagerly(coroutine, asyncio.get_running_loop())


async def in_callback(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run a coroutine eagerly from a callback, that is outside of any task, as transports do."""
    loop = asyncio.get_running_loop()
    started: asyncio.Future[asyncio.Task[None] | None] = loop.create_future()

    def start() -> None:
        try:
            started.set_result(run_eagerly(coroutine, loop))
        except BaseException as error:
            started.set_exception(error)

    loop.call_soon(start)
    return await started


class TestAtOnce:
    async def test_what_does_not_wait_has_ended_when_it_returns(self) -> None:
        done: list[int] = []

        async def work() -> None:
            done.append(1)

        assert eager(work()) is None
        assert done == [1]

    async def test_what_is_raised_before_the_first_wait_is_raised_here(self) -> None:
        async def work() -> None:
            raise ValueError("at once")

        with pytest.raises(ValueError, match="at once"):
            eager(work())
        with pytest.raises(ValueError, match="at once"):
            await in_callback(work())

    async def test_an_await_that_need_not_wait_is_no_wait(self) -> None:
        ready = asyncio.get_running_loop().create_future()
        ready.set_result(None)

        async def work() -> None:
            await ready

        assert eager(work()) is None

    async def test_a_failed_future_fails_at_once(self) -> None:
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(KeyError("failed before"))

        async def work() -> None:
            await failed

        with pytest.raises(KeyError):
            eager(work())


class TestLater:
    def test_the_rest_is_a_task(self, runner: asyncio.Runner) -> None:
        async def main() -> list[str]:
            steps: list[str] = []
            go = asyncio.Event()

            async def work() -> None:
                steps.append("begun")
                await go.wait()
                steps.append("gone on")
                await asyncio.sleep(0)
                steps.append("ended")

            task = await in_callback(work())
            assert task is not None
            assert steps == ["begun"]
            go.set()
            await task
            return steps

        assert runner.run(main()) == ["begun", "gone on", "ended"]

    async def test_what_is_raised_after_the_first_wait_is_the_tasks(self) -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            raise ValueError("later")

        task = eager(work())
        assert task is not None
        with pytest.raises(ValueError, match="later"):
            await task

    async def test_what_it_waits_for_may_fail(self) -> None:
        waited = asyncio.get_running_loop().create_future()
        caught: list[str] = []

        async def work() -> None:
            try:
                await waited
            except OSError as error:
                caught.append(str(error))
            await asyncio.sleep(0)

        task = eager(work())
        assert task is not None
        waited.set_exception(OSError("the reason"))
        await task
        assert caught == ["the reason"]

    async def test_one_may_run_another(self) -> None:
        steps: list[str] = []
        inner: list[asyncio.Task[None] | None] = []

        async def second() -> None:
            steps.append("second begun")
            await asyncio.sleep(0)
            steps.append("second ended")

        async def first() -> None:
            inner.append(eager(second()))
            steps.append("first goes on")
            await asyncio.sleep(0)
            steps.append("first ended")

        task = eager(first())
        assert task is not None and inner[0] is not None
        await asyncio.gather(task, inner[0])
        assert steps[:2] == ["second begun", "first goes on"]
        assert sorted(steps[2:]) == ["first ended", "second ended"]


class TestCancelling:
    def test_it_is_cancelled_where_it_waits(self, runner: asyncio.Runner) -> None:
        async def main() -> list[str]:
            steps: list[str] = []

            async def work() -> None:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    steps.append("told")
                    raise
                finally:
                    await asyncio.sleep(0)
                    steps.append("tidied up")

            task = await in_callback(work())
            assert task is not None
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return steps

        assert runner.run(main()) == ["told", "tidied up"]

    def test_cancelled_before_its_task_took_its_first_step(self, runner: asyncio.Runner) -> None:
        """A connection was lost in the very pass of the loop in which its command began to wait.

        The task that was to drive the rest was cancelled before it began, so the coroutine was never told: it was only
        collected as garbage, and whatever it had to await in order to tidy up did not happen.
        """

        async def main() -> list[str]:
            steps: list[str] = []
            waited = asyncio.get_running_loop().create_future()

            async def work() -> None:
                try:
                    await waited
                except asyncio.CancelledError:
                    steps.append("told")
                    raise
                finally:
                    await asyncio.sleep(0)
                    steps.append("tidied up")

            task = eager(work())
            assert task is not None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            steps.append("no longer waited for" if waited.cancelled() else "still waited for")
            return steps

        assert runner.run(main()) == ["told", "tidied up", "no longer waited for"]

    async def test_it_may_go_on_after_being_cancelled(self) -> None:
        steps: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                steps.append("told")
            await asyncio.sleep(0)
            steps.append("ended all the same")

        task = eager(work())
        assert task is not None
        task.cancel()
        await task
        assert steps == ["told", "ended all the same"]
        assert not task.cancelled()

    async def test_one_that_is_forgotten_is_closed(self) -> None:
        steps: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                steps.append("closed")

        task = eager(work())
        assert task is not None
        task.cancel()
        del task
        await asyncio.sleep(0)
        gc.collect()
        assert steps == ["closed"]


class TestInTask:
    def test_from_there_on_it_is_in_its_own_task(self, runner: asyncio.Runner) -> None:
        async def main() -> None:
            seen: list[asyncio.Task[Any] | None] = []

            async def work() -> None:
                await in_task()
                seen.append(asyncio.current_task())

            task = await in_callback(work())
            assert task is not None
            await task
            assert seen == [task]

        runner.run(main())

    async def test_within_a_task_it_does_not_wait(self) -> None:
        coroutine = in_task()
        with pytest.raises(StopIteration):
            coroutine.send(None)

    async def test_a_timeout_after_it_ends_only_what_it_is_around(self) -> None:
        ended: list[str] = []

        async def work() -> None:
            await in_task()
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                ended.append("timed out")

        task = await in_callback(work())
        assert task is not None
        await task
        assert ended == ["timed out"]

    def test_a_timeout_does_not_cancel_the_task_that_began_the_work(self, runner: asyncio.Runner) -> None:
        """The comparison of positions runs in a task for good, and runs repairs eagerly.

        A repair's read of the store ran up to its first wait within that task and took it for its own: when the read timed
        out, the periodic task was cancelled instead, and no position was ever compared again.
        """

        async def main() -> list[str]:
            steps: list[str] = []
            repaired = asyncio.Event()

            async def repair() -> None:
                await in_task()
                try:
                    async with asyncio.timeout(0.01):
                        await asyncio.Event().wait()
                except TimeoutError:
                    steps.append("the repair timed out")
                repaired.set()

            async def periodic() -> None:
                assert eager(repair()) is not None
                await repaired.wait()
                steps.append("the periodic task goes on")

            await asyncio.create_task(periodic())
            return steps

        assert runner.run(main()) == ["the repair timed out", "the periodic task goes on"]
