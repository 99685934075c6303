"""Repair: bring a channel's order up to what history says.

A channel is held while it is repaired; history is read once for all of its subscribers on this node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from channels.errors import ChannelError
from hub.fanout import Fanout
from storage.contract import Position, ReadQuery

if TYPE_CHECKING:
    from hub.node import Node

logger = logging.getLogger("hub.repair")

PAGE = 500
GRACE = 0.2
"""Seconds that a publication may be on its way from history to the fan-out."""
RETRY = 1.0
"""Seconds between attempts while history is out of reach."""


async def repair(node: Node, fanout: Fanout) -> None:
    """Fill the gap of one channel from history, or tell its subscribers that it cannot be filled."""
    node.metrics.repairs += 1
    while node.fanouts.get(fanout.name) is fanout:
        try:
            await _fill(node, fanout)
        except ChannelError as error:
            logger.warning("the channel %s waits for its history: %s", fanout.name, error)
            await asyncio.sleep(RETRY)
        else:
            fanout.repaired()
            return


async def _fill(node: Node, fanout: Fanout) -> None:
    """Bring the position to the top of history, which has all that the broker has carried when it is read."""
    assert fanout.ordering is not None
    while True:
        reached = fanout.position
        mark = fanout.ordering.mark
        page = await node.history.read(fanout.channel, ReadQuery(since=reached.offset, limit=PAGE))
        top = page.position
        if top.epoch != reached.epoch or top.offset < reached.offset:
            fanout.restart(top)
            return
        if top.offset == reached.offset:
            fanout.ordering.forget(mark)
            return
        if not page.publications or page.publications[0].offset != reached.offset + 1:
            fanout.restart(top)
            return
        fanout.advance(page.publications)
        await fanout.drained()


async def check_positions(node: Node, fanouts: Sequence[Fanout]) -> None:
    """Compare the positions of channels with history, and repair those that have fallen behind.

    A publication that is on its way right now looks like one that was lost, so those that seem behind get ``GRACE``.
    """
    ordered = [each for each in fanouts if each.ordering is not None and each.ordering.position is not None]
    if not ordered:
        return
    tops = await node.history.positions([each.channel for each in ordered])
    behind = [each for each in ordered if is_behind(each, tops.get(each.name))]
    if behind:
        await asyncio.sleep(GRACE)
    for fanout in behind:
        if is_behind(fanout, tops.get(fanout.name)):
            fanout.ask_repair()


def is_behind(fanout: Fanout, top: Position | None) -> bool:
    """Whether history has gone on, or begun anew, without this fan-out."""
    return top is not None and (top.epoch != fanout.position.epoch or top.offset > fanout.position.offset)
