"""publish: a client sends a message into a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from channels.eager import in_task
from channels.history import NO_GUARD, Guard
from channels.permissions import may_publish
from hub import codes, protocol
from hub.app import PublishEvent, PublishReply
from hub.app_replies import checked_publish_reply
from hub.codes import CloseSession
from hub.payload import checked_payload
from hub.protocol import PublishRequest
from storage.contract import Publication

if TYPE_CHECKING:
    from hub.session import Session


async def publish(session: Session, command_id: int, request: PublishRequest) -> None:
    if not request.channel:
        raise CloseSession(codes.BAD_REQUEST_DISCONNECT)
    node = session.node
    channel = node.rules.resolve(request.channel)
    data = bytes(request.data)
    changed = PublishReply()
    allowed = False
    if node.app.publish_handler is not None:
        await in_task()
        reply = checked_publish_reply(
            await node.app.publish_handler(PublishEvent(session.context(), channel.name, data))
        )
        if reply is not None:
            changed, allowed = reply, True
            data = data if reply.data is None else reply.data
    subscription = session.subscriptions.get(channel.name)
    if not allowed:
        may_publish(
            channel,
            user=session.user,
            subscribed=subscription is not None,
            insecure=node.settings.client.insecure,
        )
    publication = Publication(
        data=checked_payload(channel.options, data),
        info=subscription.info if subscription is not None else session.client_info(),
        tags=changed.tags,
        delta=channel.options.delta_publish,
        exclude_client=session.client if request.exclude_client else "",
    )
    guard = NO_GUARD
    if changed.skip_history or changed.idempotency_key:
        guard = Guard(idempotency_key=changed.idempotency_key, skip_history=changed.skip_history)
    await node.publish(channel, publication, guard, way="client")
    session.send(protocol.reply(command_id, b"publish"))
