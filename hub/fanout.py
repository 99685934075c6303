"""The fan-out of one channel on this node: from publications that arrived to writes on transports.

What arrives together goes out in one write. A large fan-out is written in slices, so that pings, other channels and
commands have their turn in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from channels.ordering import Ordering
from hub import codes
from hub.cohort import Batch, Cohort, CohortKey, Write
from hub.protocol import is_readable, join_push, leave_push, push_head
from storage.contract import ClientInfo, Position, Publication

if TYPE_CHECKING:
    from channels.names import ResolvedChannel
    from hub.metrics import Metrics
    from hub.session import Session
    from hub.subscription import Subscription

logger = logging.getLogger("hub.fanout")

SLICE = 1000
"""Writes before the event loop has its turn: a few milliseconds."""


AT_ONCE = 64 * 1024
"""Bytes of payload rendered at once: in between, whoever reads too slowly is found out."""


class Job(NamedTuple):
    """One frame on its way to the members of a cohort that it has not reached yet."""

    frame: bytes
    messages: int
    writes: Iterator[Write]


class Fanout:
    """One channel on this node: its subscribers and how far they have been brought.

    ``repair`` is called with the fan-out when publications are missing (see ``Ordering``). ``backlog_max`` is in bytes of
    payload: above it, publishers are asked to wait. ``max_lag`` is the age in seconds by ``clock`` (Unix time) at which an
    arriving publication counts as late; 0 = never.
    """

    def __init__(
        self,
        channel: ResolvedChannel,
        *,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        sessions: Mapping[str, Session],
        repair: Callable[[Fanout], None],
        backlog_max: int,
        max_lag: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.channel = channel
        self.name = channel.name
        self.head = push_head(channel.name)
        self.ordering = Ordering() if channel.options.has_history else None
        self.opening: asyncio.Task[None] | None = None
        self.holds = 0
        """Subscribers on their way in: the channel must not be closed under them."""
        self.cohorts: dict[CohortKey, Cohort] = {}
        self.loose: dict[Subscription, None] = {}
        self.count = 0
        self.watchers = 0
        """Subscriptions that are told of joins and leaves."""
        self.repairing = False
        self._loop = loop
        self._metrics = metrics
        self._sessions = sessions
        self._repair = repair
        self._backlog_max = backlog_max
        self._max_lag = max_lag
        self._clock = clock
        self._pending: list[Publication] = []
        """Taken, but not rendered yet; always the newest ``_arrived - _rendered`` publications."""
        self._pending_bytes = 0
        self._pending_since = 0.0
        """When the oldest of them came, in monotonic seconds."""
        self._arrived = 0
        """Publications taken since the channel was opened, with or without an offset; ``skip_to`` counts likewise."""
        self._rendered = 0
        """How many of those were rendered: members of cohorts have them, or have them coming in ``_jobs``."""
        self._reached = 0
        """The offset of the last rendered one: where the members of cohorts are; never above ``position.offset``."""
        self._rendering_since = 0.0
        self._base: bytes | None = None
        """The payload of the last rendered one: what the next delta is made against."""
        self._jobs: deque[Job] = deque()
        """Rendered, but not written to everybody yet. Nothing is rendered while there is one."""
        self._scheduled = False
        """``_turn`` will be called by the loop."""
        self._drained: asyncio.Future[None] | None = None
        """What publishers wait for while the channel is ``crowded``."""

    # Publications coming in

    @property
    def position(self) -> Position:
        """How far the stream has been taken; (0, "") on a channel without history."""
        if self.ordering is None or self.ordering.position is None:
            return Position(0, "")
        return self.ordering.position

    def arrived(self, publications: Sequence[Publication], epoch: str) -> None:
        """Take publications from the broker, in whatever state they come."""
        if self.ordering is None:
            self._append(publications)
            return
        if self._max_lag:
            self._check_lag(publications)
        self._append(self.ordering.take(publications, epoch))
        if self.ordering.repair_due and not self.repairing:
            self._metrics.gaps += 1
            self.ask_repair()

    def _check_lag(self, publications: Sequence[Publication]) -> None:
        """What arrives so late is not trusted to be all: have positioned subscribers begin anew."""
        oldest = min((each.time for each in publications if each.time), default=0)
        if oldest and self._clock() - oldest / 1000 > self._max_lag:
            self._metrics.lags += 1
            for subscription in self.subscriptions():
                if subscription.positioned:
                    subscription.session.insufficient_state(subscription)

    def opened(self, top: Position) -> None:
        """The stream's top is known: from here on publications count."""
        assert self.ordering is not None
        taken = self.ordering.open(top)
        self._reached = top.offset
        self._append(taken)
        if self.ordering.repair_due:
            self.ask_repair()

    def ask_repair(self) -> None:
        """Have the position compared with history, once at a time; until then nothing is taken."""
        if self.ordering is not None and self.ordering.position is not None and not self.repairing:
            self.repairing = True
            self.ordering.repair_due = True
            self._repair(self)

    def advance(self, publications: Sequence[Publication]) -> None:
        """Deliver the next publications of the stream, read from history by a repair."""
        assert self.ordering is not None
        self._append(self.ordering.advance(publications))

    def restart(self, top: Position) -> None:
        """History cannot fill the gap: those who count on every publication are told so."""
        assert self.ordering is not None
        self.ordering.restart(top)
        self._note_reached()
        for subscription in self.subscriptions():
            if subscription.positioned:
                subscription.session.insufficient_state(subscription)

    def repaired(self) -> None:
        """A repair has ended."""
        assert self.ordering is not None
        self.repairing = False
        self._append(self.ordering.release())
        if self.ordering.repair_due:
            self.ask_repair()

    def _append(self, publications: Sequence[Publication]) -> None:
        if not publications:
            self._note_reached()
            return
        if not self._pending:
            self._pending_since = time.monotonic()
        self._arrived += len(publications)
        self._pending += publications
        self._pending_bytes += sum([len(each.data) for each in publications])
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _note_reached(self) -> None:
        if not self._pending:
            self._reached = self.position.offset

    @property
    def crowded(self) -> bool:
        """More waits to go out than a publisher should add to."""
        return self._pending_bytes > self._backlog_max

    async def drained(self) -> None:
        """Wait until no more than the backlog's bound waits to go out."""
        while self.crowded:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    # Publications going out

    def _turn(self) -> None:
        if not self._jobs:
            try:
                self._render_pending()
            except Exception:
                # Nothing that could be sent may ever make the channel deaf to what follows.
                logger.exception("a publication of channel %s cannot be sent", self.name)
                self._give_up()
        self._write(SLICE)
        if self._jobs or self._pending:
            self._loop.call_soon(self._turn)
        else:
            self._scheduled = False

    def _give_up(self) -> None:
        """What was to be sent is lost to those who are here: positioned subscribers begin anew."""
        self._rendered = self._arrived - len(self._pending)
        self._base = None
        self._note_reached()
        for subscription in self.subscriptions():
            if subscription.positioned:
                subscription.session.insufficient_state(subscription)

    def _write(self, most: int) -> None:
        """Write what is rendered, ``most`` writes or one slice more."""
        written = deliveries = size = 0
        while self._jobs and written < most:
            frame, messages, writes = self._jobs[0]
            count = 0
            while True:
                try:
                    for write in islice(writes, most - written - count):
                        count += 1
                        write(frame)
                    break
                except RuntimeError:  # a transport that was closed since the slice before
                    continue
            written += count
            deliveries += count * messages
            size += count * len(frame)
            if written < most:
                self._jobs.popleft()
        self._metrics.deliveries += deliveries
        self._metrics.bytes_out += size
        if not self._jobs and deliveries:
            self._metrics.delivery_seconds.observe(time.monotonic() - self._rendering_since)

    def _finish(self) -> None:
        """Write all that is rendered now, whatever it takes."""
        while self._jobs:
            self._write(SLICE)

    def _render_pending(self) -> None:
        publications = self._next_pending()
        self._rendering_since = self._pending_since
        if self._drained is not None and not self.crowded:
            self._drained.set_result(None)
            self._drained = None
        start = 0
        for index, each in enumerate(publications):
            readable = is_readable(each)
            if each.exclude_client or not readable:
                self._render(publications[start:index])
                if readable:
                    self._render(publications[index : index + 1])
                else:
                    self._inappropriate(each)
                start = index + 1
        self._render(publications[start:] if start else publications)
        self._note_reached()

    def _next_pending(self) -> Sequence[Publication]:
        """As much of what is pending as should go out at once."""
        publications, self._pending = self._pending, []
        if self._pending_bytes <= AT_ONCE:
            self._pending_bytes = 0
            return publications
        size = count = 0
        while count < len(publications) and (not count or size + len(publications[count].data) <= AT_ONCE):
            size += len(publications[count].data)
            count += 1
        self._pending = publications[count:]
        self._pending_bytes -= size
        return publications[:count]

    def _inappropriate(self, publication: Publication) -> None:
        """A payload that JSON cannot carry: those who should get it cannot be served."""
        self._finish()
        self._rendered += 1
        self._reached = publication.offset or self._reached
        self._base = None
        for subscription in self.subscriptions():
            wanted = subscription.key.filter
            if wanted is None or wanted.matches(publication.tags):
                subscription.session.close(codes.INAPPROPRIATE_PROTOCOL)

    def _render(self, publications: Sequence[Publication]) -> None:
        if not publications:
            return
        batch = Batch(self.head, publications, self._rendered + 1, self._base)
        self._rendered += len(publications)
        self._reached = next((each.offset for each in reversed(publications) if each.offset), self._reached)
        self._base = publications[-1].data
        excluded = self._excluded(publications[0].exclude_client)
        for cohort in self.cohorts.values():
            frame, messages = batch.render(cohort.key)
            if messages:
                self._jobs.append(Job(frame, messages, iter(cohort.writes_but(excluded))))
        if excluded is not None and excluded.key.delta:
            self._finish()
            self.loosen(excluded)
            excluded.needs_full = True
        for subscription in tuple(self.loose):
            self._offer(subscription, batch)

    def _excluded(self, client: str) -> Subscription | None:
        session = self._sessions.get(client) if client else None
        return session.subscriptions.get(self.name) if session is not None else None

    def _offer(self, subscription: Subscription, batch: Batch) -> None:
        """Give a batch to one loose subscription, publication by publication."""
        session = subscription.session
        for index, each in enumerate(batch.publications):
            if subscription.catching_up or session.closed:
                return
            if batch.first + index <= subscription.skip_to:
                continue
            if subscription.positioned and each.offset:
                if each.offset <= subscription.position.offset:
                    continue
                subscription.position = Position(each.offset, subscription.position.epoch)
            if each.exclude_client and each.exclude_client == session.client:
                continue
            if subscription.key.filter is not None and not subscription.key.filter.matches(each.tags):
                continue
            conflate = session.paused and subscription.channel.options.conflate
            message = batch.message(index, subscription.key, full=conflate or subscription.needs_full)
            subscription.needs_full = False
            if not conflate:
                session.send(message)
                self._metrics.deliveries += 1
            else:
                self._metrics.conflated += subscription.latest is not None
                subscription.latest = message
        self.settle(subscription)

    # Subscribers coming and going

    def subscriptions(self) -> list[Subscription]:
        """All subscriptions of this node on the channel."""
        return [*(each for cohort in self.cohorts.values() for each in cohort.members), *self.loose]

    def add(self, subscription: Subscription) -> None:
        """Begin to deliver to a subscription whose reply has just been written."""
        self.count += 1
        self.watchers += subscription.pushes_join_leave
        subscription.skip_to = self._arrived
        subscription.loose = True
        self.loose[subscription] = None
        self.settle(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Deliver nothing more to a subscription. Safe to call twice."""
        if subscription in self.loose:
            del self.loose[subscription]
        elif not self._leave_cohort(subscription):
            return
        self.count -= 1
        self.watchers -= subscription.pushes_join_leave
        if self._jobs and not subscription.session.closed:
            self._finish()

    def loosen(self, subscription: Subscription) -> None:
        """Take a subscription out of its cohort, to be looked at one publication at a time."""
        if self._leave_cohort(subscription):
            subscription.loose = True
            subscription.skip_to = self._rendered
            subscription.position = Position(self._reached, self.position.epoch)
            self.loose[subscription] = None

    def settle(self, subscription: Subscription) -> None:
        """Let a loose subscription into its cohort as soon as nothing sets it apart."""
        if subscription not in self.loose:
            return
        if subscription.catching_up or subscription.needs_full or subscription.session.paused:
            return
        if subscription.skip_to > self._rendered:
            return
        if subscription.positioned and subscription.position.offset != self._reached:
            return
        del self.loose[subscription]
        subscription.loose = False
        cohort = self.cohorts.get(subscription.key)
        if cohort is None:
            cohort = self.cohorts[subscription.key] = Cohort(subscription.key)
        cohort.add(subscription, subscription.session.transport.write)

    def _leave_cohort(self, subscription: Subscription) -> bool:
        cohort = self.cohorts.get(subscription.key)
        if cohort is None or not cohort.discard(subscription):
            return False
        if not cohort.members:
            self.cohorts = {key: each for key, each in self.cohorts.items() if each is not cohort}
        return True

    # Joins and leaves

    def tell_joined(self, info: ClientInfo) -> None:
        if self.watchers:
            self._tell(join_push(self.head, info))

    def tell_left(self, info: ClientInfo) -> None:
        if self.watchers:
            self._tell(leave_push(self.head, info))

    def _tell(self, message: bytes) -> None:
        for subscription in self.subscriptions():
            if subscription.pushes_join_leave:
                subscription.session.send(message)
